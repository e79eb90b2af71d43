"""Connections beside their tokens: listed, uploaded, deleted and revoked."""
