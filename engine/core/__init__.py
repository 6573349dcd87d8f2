"""The exchange without I/O: commands, what they do, and the state that their events rebuild."""
