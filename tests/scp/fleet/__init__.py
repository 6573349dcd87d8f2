"""Tests of scp/fleet/."""
