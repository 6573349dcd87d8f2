"""A collector of traces that tests run, and what they look for in them."""
