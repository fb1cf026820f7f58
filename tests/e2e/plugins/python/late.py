"""A module that fails when it is imported."""

raise ValueError("no table")
