"""The app library: one small data file per provider, and the loader."""
