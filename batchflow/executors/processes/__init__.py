"""Embedded worker processes of one machine."""
