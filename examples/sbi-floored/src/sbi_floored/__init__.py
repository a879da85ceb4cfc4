"""A combination rule for sbi-core."""
