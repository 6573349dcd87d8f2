"""The page in a real browser: on a real run, under a measured load, under real hands and on bad networks."""
