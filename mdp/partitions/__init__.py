"""One partition: its state, and what it keeps of the time before."""
