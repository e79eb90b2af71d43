"""What of a call goes on to a provider's API, what of its answer comes back, and which paths are none. All of it pure.

Nothing is made right here: what is not as it should be is refused, or left out whole.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from urllib.parse import unquote_plus, unquote_to_bytes

from evergrant.errors import InvalidValue

RawHeaders = Sequence[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
"""Headers of one connection (RFC 9110 section 7.6.1); so is what `Connection` names."""
_NOT_FORWARDED = HOP_BY_HOP | {
    *(b"authorization", b"content-length", b"cookie", b"expect", b"forwarded", b"host", b"origin", b"referer"),
    *(b"via", b"x-real-ip", b"baggage", b"traceparent", b"tracestate"),
}
_NOT_FORWARDED_BEGINNINGS = (b"proxy-", b"x-forwarded-", b"sec-", b"evergrant-", b"x-descope-")
_NOT_RETURNED = HOP_BY_HOP | {
    *(b"set-cookie", b"set-cookie2", b"www-authenticate", b"proxy-authenticate", b"authentication-info"),
    *(b"proxy-authentication-info", b"alt-svc", b"clear-site-data", b"refresh", b"strict-transport-security"),
    *(b"service-worker-allowed", b"x-sendfile"),
}
_NOT_RETURNED_BEGINNINGS = (b"access-control-", b"x-accel-", b"evergrant-")
ADDED: tuple[tuple[bytes, bytes], ...] = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"sandbox; default-src 'none'"),
    (b"x-content-type-options", b"nosniff"),
)
"""What every answer says, in the place of what a provider says: its pages are none of ours."""
_REPLACED = frozenset(name for name, _ in ADDED)
_OVERRIDES = ("x-http-method", "x-method-override", "x-original-url", "x-rewrite-url")
"""The last two are a path for another, to IIS and what was made to stand behind it."""
_METHOD_PARAMETER = "_method"
_METHOD_PARAMETERS = frozenset(("method", "httpmethod", "xhttpmethod", "xhttpmethodoverride", "methodoverride"))
"""In small letters and without marks. They say a method where their value is one: others are ordinary."""
_METHOD_VALUES = frozenset(("get", "head", "options", "post", "put", "patch", "delete"))
_FORM, _PARTS = "application/x-www-form-urlencoded", "multipart/form-data"
_METHOD_PART = re.compile(rb"""\bname\*?\s*=\s*(?:"|'|[^;\s"']*'[^;\s"']*')?\s*_method\b""", re.IGNORECASE)
_SESSION_KEY = re.compile(rb"evs_[^:\s]{1,31}_[0-9A-Za-z]{22}_")

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header's name (RFC 9110 section 5.6.2)."""
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
"""Its value (RFC 9110 section 5.5), without the blanks around it."""
_PATH = re.compile(r"/[!$-;=@-\[\]_a-z~]*")
"""A path as it may stand in a request: what needs a percent sign has one."""
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_DOTS = re.compile(rb"(?:^|/)\.\.?(?:[/;]|$)")
_SLASH = re.compile(r"%2[fF]")
_PARAMETERS = re.compile(r";[^/]*")
_SLASHES = re.compile(r"/{2,}")


def forwarded(headers: RawHeaders, *, credential_headers: Iterable[str] = ()) -> list[tuple[bytes, bytes]]:
    """Return the headers of a call that go on, in lower case and in their order.

    Left out are those that speak of the way to us, those that could speak for somebody else, the ones in which the
    app's credential stands (`credential_headers`), and every one with a session key in it.

    Raises:
        InvalidValue: a name or a value is none (RFC 9110 section 5).
    """
    left_out = named_by_connection(headers)
    left_out.update(name.lower().encode() for name in credential_headers)
    kept = []
    for name, value in headers:
        if not _VALUE.fullmatch(value):
            raise InvalidValue.of(("headers", f"{_shown(name)} has a value that no header may have"))
        lowered, goes_on = _goes_on(name)
        if not goes_on or lowered in left_out or (b"evs_" in value and _SESSION_KEY.search(value)):
            continue
        if not value.isascii():
            _require_utf8(name, value)
        kept.append((lowered, value))
    return kept


def returned(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer that come back, in lower case, with those that are added to every one."""
    left_out = named_by_connection(headers)
    kept = []
    for name, value in headers:
        lowered, comes_back = _comes_back(name)
        if comes_back and lowered not in left_out:
            kept.append((lowered, value))
    kept.extend(ADDED)
    return kept


def header(headers: RawHeaders, name: bytes) -> str:
    """Return the value of one header, all its lines as one; empty where there is none."""
    return ", ".join(value.decode("latin-1").strip() for found, value in headers if found.lower() == name)


def named_by_connection(headers: RawHeaders) -> set[bytes]:
    """Return, in lower case, what `Connection` says is for one connection alone."""
    found: set[bytes] = set()
    for name, value in headers:
        if len(name) == 10 and name.lower() == b"connection":
            found.update(part.strip().lower() for part in value.split(b","))
    return found


@lru_cache(maxsize=2048)
def _goes_on(name: bytes) -> tuple[bytes, bool]:
    if not _TOKEN.fullmatch(name):
        raise InvalidValue.of(("headers", f"{_shown(name)} is no name of a header"))
    lowered = name.lower()
    # Servers that write names with `_` for `-` would take one for another.
    is_kept = b"_" not in lowered and lowered not in _NOT_FORWARDED
    return lowered, is_kept and not lowered.startswith(_NOT_FORWARDED_BEGINNINGS)


@lru_cache(maxsize=2048)
def _comes_back(name: bytes) -> tuple[bytes, bool]:
    lowered = name.lower()
    is_kept = bool(_TOKEN.fullmatch(name)) and lowered not in _NOT_RETURNED and lowered not in _REPLACED
    return lowered, is_kept and not lowered.startswith(_NOT_RETURNED_BEGINNINGS)


def _shown(name: bytes) -> str:
    return ascii(name.decode("latin-1"))[:80]


def _require_utf8(name: bytes, value: bytes) -> None:
    try:
        value.decode()
    except UnicodeDecodeError:
        raise InvalidValue.of(("headers", f"{_shown(name)} has a value that is not UTF-8")) from None


def override_problem(headers: RawHeaders, query: str) -> str:
    """Tell what in a call asks a server to take it for another method, which would go round rules; empty if nothing."""
    for name, _ in headers:
        if name.lower().replace(b"_", b"-").decode("latin-1").startswith(_OVERRIDES):
            return f"{_shown(name)} is not forwarded: send the method and the path themselves"
    return _form_override(query)


def body_override_problem(content_type: str, body: bytes) -> str:
    """Tell the same of a form, in whose fields some servers look for a method; empty if there is nothing."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == _FORM:
        return _form_override(body.decode("latin-1"))
    if kind == _PARTS and _METHOD_PART.search(body):
        return _refused_parameter(_METHOD_PARAMETER)
    return ""


def _form_override(form: str) -> str:
    if "ethod" not in unquote_plus(form).lower():
        return ""
    for parameter in re.split("[&;]", form):
        name = _parameter(parameter)
        is_method = unquote_plus(parameter.partition("=")[2]).strip().lower() in _METHOD_VALUES
        if name == _METHOD_PARAMETER or (is_method and re.sub(r"[^a-z]", "", name) in _METHOD_PARAMETERS):
            return _refused_parameter(name)
    return ""


def _refused_parameter(name: str) -> str:
    return f"the parameter {name[:80]} is not forwarded: send the method itself"


def _parameter(parameter: str) -> str:
    """Return a query parameter's name as the most lenient of servers reads it: PHP takes dots and blanks for `_`."""
    name = unquote_plus(parameter.partition("=")[0]).strip().lower().partition("[")[0].partition("\0")[0]
    return re.sub(r"[ .]", "_", name)


def without_parameters(query: str, names: Iterable[str]) -> str:
    """Return a query without some parameters, in whatever spelling; the rest stays byte for byte."""
    taken_out = {_parameter(name) for name in names}
    if not query or not taken_out:
        return query
    parts = query.split("&")
    kept = [part for part in parts if not any(_parameter(one) in taken_out for one in part.split(";"))]
    return query if len(kept) == len(parts) else "&".join(kept)


def path_problem(path: str) -> str:
    """Tell why a path cannot go on, which begins with a slash and stands as it was asked for; empty if it can.

    What a server might take for another path once it has decoded it, or decoded it twice, is refused.
    """
    if not _PATH.fullmatch(path):
        return "the path has characters that must be written with a percent sign, or does not begin with a slash"
    reading = path.encode()
    for _ in range(3):
        if reading.startswith(b"//"):
            return "the path begins with two slashes"
        if b"\\" in reading:
            return "the path has a backslash"
        if _CONTROL.search(reading):
            return "the path has a control character"
        if _DOTS.search(reading):
            return "the path has a segment . or .."
        if b"%" not in reading:
            break
        reading = unquote_to_bytes(reading)
    return ""


def readings(path: str) -> tuple[str, ...]:
    """Return a path in every way in which a server may read it, as it stands first.

    As it stands; with `%2F` as a slash; decoded, and decoded twice; each without `;parameters` and with one slash
    where there are several. A rule that allows has to hold for all, one that denies for any.
    """
    if "%" not in path and ";" not in path and "//" not in path:
        return (path,)
    found = dict.fromkeys((path, _SLASH.sub("/", path)))
    once = _decoded(path)
    found |= dict.fromkeys((once, _decoded(once)))
    found |= dict.fromkeys(_PARAMETERS.sub("", one) for one in tuple(found))
    found |= dict.fromkeys(_SLASHES.sub("/", one) for one in tuple(found))
    return tuple(found)


def _decoded(path: str) -> str:
    return unquote_to_bytes(path).decode(errors="replace")
