"""News: what an article is, which symbols it is about, and the feeds that bring articles."""
