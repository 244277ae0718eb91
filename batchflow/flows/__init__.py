"""Task graphs: build, schedule, result."""
