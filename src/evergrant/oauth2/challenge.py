"""What a protected resource says to whoever comes without a token (RFC 9110 section 11.6.1, RFC 9728 section 5.1)."""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urljoin

from evergrant import __version__
from evergrant.errors import UpstreamError
from evergrant.oauth2.documents import redirect_of, same_origin
from evergrant.oauth2.transport import Http, HttpAnswer

ASK_SECONDS = 5.0
"""How long an answer may take: some servers open a stream of events that never ends."""

_INITIALIZE = (
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},'
    b'"clientInfo":{"name":"evergrant","version":"%b"}}}' % __version__.encode()
)
"""What an MCP client says first. It does nothing but begin a conversation."""

# A name, which begins a challenge where no "=" follows, else has a value: quoted, in the single quotes that some
# servers write, or bare up to a blank or comma. A legal token ends at a colon; a bare URL does not.
_PART = re.compile(
    r"""([!#$%&*+.^_`|~0-9A-Za-z-]+)(?:\s*=\s*("(?:[^"\\]|\\.)*"|'[^']*'(?=[\s,]|$)|[^\s,]*))?""",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Challenge:
    """What was found: where the resource's metadata is, empty where it does not say, and the scopes that it wants."""

    metadata_url: str = ""
    scopes: tuple[str, ...] = ()


async def ask_for_challenge(http: Http, url: str, tried: list[str]) -> Challenge | None:
    """Ask a resource without a token, by GET and then as an MCP client does; None where it demands none.

    Many MCP servers do not take a GET, or answer it without looking at who asks.
    """
    found: Challenge | None = None
    said = []
    for method in ("GET", "POST"):
        try:
            async with asyncio.timeout(ASK_SECONDS):
                answer = await _ask(http, method, url)
        except (UpstreamError, TimeoutError):
            said.append(f"no answer to {method}")
            continue
        said.append(f"status {answer.status} to {method}")
        if not 400 <= answer.status < 500:
            continue
        header = answer.headers.get("www-authenticate", "")
        if header or answer.status == 401:
            found = read_challenge(header, url)
            if found.metadata_url:
                return found
    tried.append(f"{url} ({', '.join(said)})")
    return found


async def _ask(http: Http, method: str, url: str) -> HttpAnswer:
    headers = {"accept": "application/json"}
    content = None
    if method == "POST":
        headers = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
        content = _INITIALIZE
    answer = await http.request(method, url, headers=headers, content=content)
    onward = redirect_of(url, answer)
    if onward and same_origin(onward, url):
        return await http.request(method, onward, headers=headers, content=content)
    return answer


def read_challenge(header: str, url: str) -> Challenge:
    """Read `WWW-Authenticate`, which may have several challenges; the first that names metadata counts.

    A relative address is taken from `url`, the resource's own.
    """
    challenges = list(_challenges(header))
    named = next((params for params in challenges if params.get("resource_metadata")), {})
    scopes = named.get("scope") or next((params["scope"] for params in challenges if params.get("scope")), "")
    try:
        address = urljoin(url, named.get("resource_metadata", "")) if named else ""
    except ValueError:
        address = ""
    return Challenge(address, tuple(dict.fromkeys(scopes.split())))


def _challenges(header: str) -> Iterator[dict[str, str]]:
    """Yield the parameters of each challenge, by their names in small letters."""
    params: dict[str, str] = {}
    for part in _PART.finditer(header):
        name, value = part[1].lower(), part[2]
        if value is None:
            yield params
            params = {}
        else:
            params.setdefault(name, _unquoted(value))
    yield params


def _unquoted(value: str) -> str:
    if value[:1] == '"' and value[-1:] == '"' and len(value) > 1:
        return re.sub(r"\\(.)", r"\1", value[1:-1]).strip()
    return value[1:-1].strip() if value[:1] == "'" and value[-1:] == "'" and len(value) > 1 else value
