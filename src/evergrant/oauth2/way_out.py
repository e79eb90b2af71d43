"""The way out to APIs, as it is before the first call: without the HTTP client."""

import ssl
from typing import TYPE_CHECKING

from evergrant.oauth2.egress import Opened
from evergrant.oauth2.lookups import SystemLookups

if TYPE_CHECKING:
    from evergrant.oauth2.upstream import Upstream


class WayOut:
    """The way out to APIs of one process, which opens with its first call."""

    def __init__(self, egress_allow: tuple[Opened, ...], tls: ssl.SSLContext) -> None:
        """Nothing opens yet. `egress_allow` is what may be called although it is not public."""
        self._egress_allow, self._tls = egress_allow, tls
        self._upstream: Upstream | None = None

    def upstream(self) -> "Upstream":
        """Return what makes calls."""
        if self._upstream is None:
            # It imports aiohttp: 7 MB and a fifteenth of a start, and many processes only fetch or refresh.
            from evergrant.oauth2.upstream import Upstream

            self._upstream = Upstream(self._egress_allow, resolve=SystemLookups(), tls=self._tls)
        return self._upstream

    async def aclose(self) -> None:
        """Close every connection."""
        if self._upstream is not None:
            await self._upstream.aclose()
