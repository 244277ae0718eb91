"""Combination of outcomes in input order: in memory, as a tree, or as parts on disk."""
