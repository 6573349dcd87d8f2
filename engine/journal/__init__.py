"""The one sequence of commands and its record on the disk."""
