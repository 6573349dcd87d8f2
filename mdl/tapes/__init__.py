"""Recorded days: their format, the recorder, and a generator for benchmarks."""
