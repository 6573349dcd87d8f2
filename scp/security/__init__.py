"""Who somebody is and what they may do: passwords, second factors, sessions, tokens, roles, throttling, audit."""
