"""Projects, the issuers that they trust, and where their browsers may return to."""
