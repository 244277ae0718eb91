"""Programs that do the jobs of the suites, each a script of its own."""
