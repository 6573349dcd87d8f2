"""`/v1/trade`: orders and private streams of one caller over one WebSocket."""
