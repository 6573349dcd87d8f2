"""Cached documents and their updates in, one ordered stream of documents and consistent snapshots out."""
