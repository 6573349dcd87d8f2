"""Each analyzer against a naive model of itself."""
