"""Simulations as shards: one unit of work, one file, the same bits on every retry."""
