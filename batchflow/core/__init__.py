"""Values and policies shared by all other packages; no Arrow and no third-party import."""
