"""Output formats: Parquet, CSV, JSON Lines, Arrow IPC."""
