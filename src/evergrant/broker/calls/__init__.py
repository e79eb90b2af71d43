"""Calls of providers' APIs with somebody's connection, by whoever never sees its token."""
