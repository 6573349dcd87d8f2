"""Simulates the whole data plane on a virtual clock, with faults drawn from a seed."""
