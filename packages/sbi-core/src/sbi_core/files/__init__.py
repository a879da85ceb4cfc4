"""Files of a run: atomic writes, tensors, the run directory, its lock and its records."""
