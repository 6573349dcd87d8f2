"""Measures the way of market data: listener, queues, processors, cache."""
