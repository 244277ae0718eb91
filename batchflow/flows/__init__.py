"""Task graphs: construction, scheduling, results."""
