"""Values and policies that every other package uses; no Arrow and no third-party import."""
