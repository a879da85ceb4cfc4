"""The run directory: what lies where, written atomically, with its provenance."""
