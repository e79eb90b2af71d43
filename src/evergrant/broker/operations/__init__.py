"""What operators do: set up, look for faults, rotate keys, read metrics."""
