"""Progress, reports and advice."""
