"""Never run: the public surface as users type it, checked by mypy."""
