"""Plug-ins, and what keeps the processors safe from them."""
