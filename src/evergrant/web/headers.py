"""Headers that answers have: what keeps them out of caches and frames, and what is left of the caller's limit."""

from functools import lru_cache

from evergrant.broker.runtime.limits import Left

RawHeaders = list[tuple[bytes, bytes]]

LIMIT_HEADERS = {
    "x-ratelimit-limit": "Requests per second; for connect trips that users begin, per minute.",
    "x-ratelimit-remaining": "How many of these may be made right now.",
    "x-ratelimit-reset": "Seconds until the next may be made; 0 unless nothing remains.",
}
_LIMIT, _REMAINING, _RESET = (name.encode() for name in LIMIT_HEADERS)


def usual_headers(public_url: str) -> RawHeaders:
    """Return the headers of every answer that does not set them itself."""
    headers = [
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        # Nothing that is no page runs or shows anything, should a browser take it for one.
        (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    ]
    if public_url.startswith("https://"):
        headers.append((b"strict-transport-security", b"max-age=31536000"))
    return headers


@lru_cache(maxsize=1024)
def limit_headers(left: Left) -> RawHeaders:
    """Return the headers that say what a caller has left of its limit."""
    return [(_LIMIT, b"%d" % left.limit), (_REMAINING, b"%d" % left.remaining), (_RESET, b"%d" % left.reset)]


@lru_cache(maxsize=1024)
def limit_lines(left: Left) -> bytes:
    """Return the same headers as lines of an answer."""
    return as_lines(limit_headers(left))


def as_lines(headers: RawHeaders) -> bytes:
    """Write headers, none of which a caller has a part in, as lines of an answer."""
    return b"".join(b"%b: %b\r\n" % header for header in headers)
