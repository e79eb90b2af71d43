"""Handing out tokens."""
