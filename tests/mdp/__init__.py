"""The processors: pure parts against plain models, shells against every kind of cache and queue."""
