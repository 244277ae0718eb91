"""Execution of one job: planning, scheduling, resume, repair."""
