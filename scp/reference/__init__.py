"""What the vendor's REST service says of companies and of older candles: asked sparingly, kept, and never believed blindly."""
