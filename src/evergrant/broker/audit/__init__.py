"""The audit log: what happened, by whom, in a chain that shows tampering."""
