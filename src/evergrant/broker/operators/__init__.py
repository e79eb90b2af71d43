"""Operators: people at the console, how they get in, and what they may do."""
