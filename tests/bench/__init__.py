"""Benchmarks: one file a question, JSON lines out."""
