"""The control plane's API over HTTP, on a real process."""
