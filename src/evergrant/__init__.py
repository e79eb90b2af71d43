"""evergrant: a self-hosted outbound-apps broker."""

__version__ = "0.1.0"
