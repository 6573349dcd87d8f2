"""Mirrors mdp/events."""
