"""Outcomes, arriving in any order, put together in input order: in memory, as a tree, or as parts on disk."""
