"""Trying things out: test connections, the practice provider's app, and a project's first steps."""
