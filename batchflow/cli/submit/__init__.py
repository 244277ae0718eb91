"""Commands of ours as jobs of a Ray cluster: packed, submitted, followed and stopped."""
