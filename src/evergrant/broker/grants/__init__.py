"""Grants: the recorded consents, when each is due, and when each was last used."""
