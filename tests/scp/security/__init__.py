"""scp/security/ without a server."""
