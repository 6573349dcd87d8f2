"""Real servers, real failures."""
