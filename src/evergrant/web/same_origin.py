"""Whether a form was sent from a page of ours: the defence against forged requests (CSRF).

Browsers say where a request comes from in `Sec-Fetch-Site`, which no page can change; older ones in `Origin`.
"""

from starlette.requests import Request

from evergrant.broker.runtime.broker import Broker

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def is_from_us(request: Request, broker: Broker, *, at: str = "") -> bool:
    """Tell whether an unsafe request comes from one of our own pages; where nothing says so, it does not.

    `at` is the origin that the page has, where that is not the public URL's.
    """
    if request.method in SAFE:
        return True
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    return request.headers.get("origin") == (at or broker.settings.public_url)
