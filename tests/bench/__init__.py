"""Benchmarks answer one question a file and print their figures as JSON lines."""
