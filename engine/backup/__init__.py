"""Backups of an exchange: taken while it runs, put back into an empty folder."""
