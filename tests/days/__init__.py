"""Simulated market days, and an oracle that works out plainly what every channel must say after them."""
