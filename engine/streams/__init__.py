"""The journal in Redis Streams, and back."""
