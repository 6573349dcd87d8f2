"""Feed to cache: whole flows through several components."""
