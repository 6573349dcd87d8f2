"""HTTP and WebSockets: orders, markets, accounts, controls, message stores."""
