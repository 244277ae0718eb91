"""Progress on a terminal, in a log, in a notebook."""
