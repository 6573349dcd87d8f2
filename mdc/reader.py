"""Cached documents and their pub/sub updates in, one ordered stream of documents and consistent snapshots out (contract first;
see mdc/README.md for keys)."""
