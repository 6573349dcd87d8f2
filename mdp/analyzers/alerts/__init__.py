"""Alerts: what they say, and the analyzers that make them."""
