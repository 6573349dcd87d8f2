"""Offers the Python client: `from wds.client import Client`."""

from wds.client.client import Client, WdsError, stream_url

__all__ = ["Client", "WdsError", "stream_url"]
