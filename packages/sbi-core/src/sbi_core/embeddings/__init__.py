"""Summary networks: from observed data to features."""
