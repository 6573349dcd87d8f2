"""What the vendor's REST service knows of symbols: asked by one worker, in a process of its own; kept in the cache for all."""
