"""Message stores: what consumers are told, what is kept for them, when trading waits for them."""
