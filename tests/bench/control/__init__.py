"""Measures the control plane and its page."""
