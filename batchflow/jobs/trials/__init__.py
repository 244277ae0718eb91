"""Dry run, forecast, and scaling measurements."""
