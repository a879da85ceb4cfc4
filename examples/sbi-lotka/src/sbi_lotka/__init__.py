"""Stochastic Lotka-Volterra populations for sbi-core."""

__version__ = "0.1.0"
