"""Snapshots, and the state rebuilt from them and the journal."""
