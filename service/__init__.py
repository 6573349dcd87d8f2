"""What every component shares: settings, logs, metrics, admin port, clock, shutdown, leases. Imports nothing of ours."""
