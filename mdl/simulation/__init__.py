"""A simulated stock market: which symbols there are, and what happens to them."""
