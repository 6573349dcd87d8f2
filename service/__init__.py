"""What every component shares: settings, logs, metrics, admin port, clock, shutdown, leases. Imports nothing of ours."""

VERSION = "0.1.0"  # of everything: the package, the heartbeats, the API's description
