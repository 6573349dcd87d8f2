"""Trading bots, clients of the gateway."""
