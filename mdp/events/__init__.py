"""What the vendor's events say, and what they may change."""
