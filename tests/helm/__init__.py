"""The chart, tested."""
