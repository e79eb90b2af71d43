"""Attacks go against what a stranger, a user or a backend can reach: the same installations as in `tests/web/`."""

from tests.cli.conftest import evergrant
from tests.web.conftest import backend_with, here, idp, other

__all__ = ["backend_with", "evergrant", "here", "idp", "other"]
