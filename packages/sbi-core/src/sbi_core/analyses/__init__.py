"""What a domain adds to the results of a run."""
