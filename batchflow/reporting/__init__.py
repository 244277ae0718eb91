"""Progress, report, advice."""
