"""A consumer of messages that keeps orders and trades in SQL; a client of the gateway."""
