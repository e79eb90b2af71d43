"""A practice provider and a guided demo: pretend accounts, for trying evergrant and for testing it.

Nothing in production imports this package. What it plays is real OAuth 2.0, so that what works here works
outside.
"""
