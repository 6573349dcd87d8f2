"""Where the time of the feeds stands: the trading day and the session of each market, and what all streams have reached."""
