"""What every component shares, tested."""
