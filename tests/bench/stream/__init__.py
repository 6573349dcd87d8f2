"""Measures the data service and what its clients get."""
