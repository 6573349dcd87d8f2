"""The components at runtime: who is there, what is asked of them, and what the listeners are to do."""
