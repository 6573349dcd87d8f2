"""A second engine that copies the leader's journal over the network, and takes over from it."""
