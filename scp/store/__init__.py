"""The control plane's database: SQLite in RUN_DIR, or PostgreSQL by URL."""
