"""The HTTP API under /api/v1: what people's pages and scripts ask of the control plane."""
