"""The questions: a module each, with ``suite(scale)``, or ``suites(scale)`` where one is asked of several."""
