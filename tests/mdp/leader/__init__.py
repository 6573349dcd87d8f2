"""Mirrors mdp/leader."""
