"""Grants that go, and telling the provider: what is to be revoked there, and the tries until it is."""
