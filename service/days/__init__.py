"""When markets are open: which market a symbol belongs to, its trading days, sessions and holidays."""
