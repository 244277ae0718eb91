"""The questions: a module each, with a function ``suite(scale)``."""
