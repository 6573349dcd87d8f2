"""The analyzers by name, in the order in which they see an event; a worker runs the list that MDP_ANALYZERS names."""
