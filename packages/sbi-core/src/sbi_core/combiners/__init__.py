"""Rules that combine N single-object posteriors, one per module."""
