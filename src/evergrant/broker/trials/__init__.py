"""Trials: an operator connects an app to themselves, and sees step by step what works."""
