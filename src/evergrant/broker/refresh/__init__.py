"""Refreshing: the one critical section, and all that leads to it and out of it."""
