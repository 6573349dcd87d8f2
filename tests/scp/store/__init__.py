"""scp/store/ without a server."""
