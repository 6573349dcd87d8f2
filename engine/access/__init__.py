"""Who may do what: keys with roles, the rules of every route, limits a key."""
