"""Measures the exchange: book, journal, gateway, order queue, streams."""
