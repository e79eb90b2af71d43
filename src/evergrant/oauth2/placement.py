"""Where a call carries its credential: the caller's session key in the place of a provider's, and the real one."""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, unquote_plus

from evergrant.crypto.opaque import SESSION_PREFIX, session_key_parts
from evergrant.oauth2.hygiene import RawHeaders, without_parameters

_USUAL_HEADERS = ("authorization", "x-api-key")
"""Where SDKs put a credential, whatever the API's own place for it is."""
_SCHEME = re.compile(r"(?:[A-Za-z][A-Za-z0-9_-]*[ :]\s*)?(?P<rest>\S+)\s*")


def found_key(
    headers: RawHeaders, query: str, *, header_names: Iterable[str] = (), parameter_names: Iterable[str] = ()
) -> str | None:
    """Return the session key that stands where a provider's SDK puts a credential; None where none does.

    Looked at are `Authorization` with any scheme, HTTP Basic's user name and password, `X-Api-Key`, and the headers and
    query parameters in which the app's credential stands.
    """
    names = {*_USUAL_HEADERS, *(name.lower() for name in header_names)}
    for name, value in headers:
        if name.decode("latin-1").lower() in names:
            for candidate in _candidates(value.decode("latin-1")):
                if session_key_parts(candidate):
                    return candidate
    if SESSION_PREFIX in query:
        parameters = {name.lower() for name in parameter_names}
        for part in query.split("&"):
            parameter, _, text = part.partition("=")
            if unquote_plus(parameter).lower() in parameters and session_key_parts(unquote_plus(text)):
                return unquote_plus(text)
    return None


def _candidates(value: str) -> Iterator[str]:
    found = _SCHEME.fullmatch(value)
    if found is None:
        return
    rest = found["rest"].strip("\"'")
    yield rest.removeprefix("token=").strip("\"'")
    if value[:6].lower() == "basic ":
        try:
            pair = base64.b64decode(rest, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return
        yield from pair.split(":", 1)


def with_parameters(query: str, carried: Mapping[str, str]) -> str:
    """Return a query with the parameters of a credential, in the place of any of the same name.

    They are those of the catalogue's `Api.carried`.
    """
    if not carried:
        return query
    parts = [without_parameters(query, carried)]
    parts += [f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in carried.items()]
    return "&".join(part for part in parts if part)
