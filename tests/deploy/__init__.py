"""The local runner, tested."""
