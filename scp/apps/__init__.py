"""py4web imports each folder here as one app."""
