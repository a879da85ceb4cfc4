"""Priors as data."""
