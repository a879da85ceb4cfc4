"""The pipeline: simulate, emulate, train, diagnose, infer, combine, report."""
