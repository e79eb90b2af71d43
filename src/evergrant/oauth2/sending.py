"""Whether a request has been sent, which decides whether a refresh without an answer is in doubt."""

import time
from collections.abc import Mapping
from typing import Any

from evergrant.errors import TooLateToSend
from evergrant.oauth2.listening import Limit


class Sending:
    """Follows one request to the moment in which the other side may act on it."""

    def __init__(self, limit: Limit, *, seconds: float, send_before: float | None, has_content: bool) -> None:
        self._limit = limit
        self._seconds = seconds
        self._send_before = send_before
        self._last_part = "http11.send_request_body.started" if has_content else "http11.send_request_headers.started"
        self.has_begun = False
        """Whether all of it may have been sent. Of a form without its body nothing comes."""

    async def __call__(self, event: str, _info: Mapping[str, Any]) -> None:
        """Hear from the connection what happens next."""
        if event not in ("http11.send_request_headers.started", self._last_part):
            return
        if self._send_before is not None and time.monotonic() >= self._send_before:
            raise TooLateToSend
        self._limit.allow(self._seconds)
        self.has_begun = event == self._last_part
