"""Whether a request has been sent, which decides whether a refresh without an answer is in doubt."""

import time
from collections.abc import Mapping
from typing import Any

from evergrant.errors import TooLateToSend

_HEADERS = "http11.send_request_headers.started"
_BODY = "http11.send_request_body.started"


class Sending:
    """Follows one request to the moment from which on the other side may act on it."""

    def __init__(self, *, before: float | None, has_content: bool) -> None:
        """It is not sent from `before` on, a moment of `time.monotonic()`; None for no such moment."""
        self._before = before
        self._last_part = _BODY if has_content else _HEADERS
        self.has_begun = False
        """Whether all of it may have been sent. Of a form without its body nothing comes."""

    async def __call__(self, event: str, _info: Mapping[str, Any]) -> None:
        """Hear from the connection what it does next.

        Raises:
            TooLateToSend: a part was about to be sent, and it is too late.
        """
        if event not in (_HEADERS, self._last_part):
            return
        if self._before is not None and time.monotonic() >= self._before:
            raise TooLateToSend
        self.has_begun = event == self._last_part
