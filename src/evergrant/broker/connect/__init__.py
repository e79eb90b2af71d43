"""The connect trip, from the link to the callback."""
