"""The cache contract, tested alike against every kind of cache."""
