"""What every use case runs on: the broker itself, the vault, the journal and the limits."""
