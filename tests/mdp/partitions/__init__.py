"""Mirrors mdp/partitions."""
