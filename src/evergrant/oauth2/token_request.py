"""Sends our client's requests to a provider's endpoint, authenticated and written as the provider wants them."""

import base64
import json
import secrets as random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote, urlencode

from evergrant import clock
from evergrant.errors import UpstreamRejected
from evergrant.oauth2 import client_assertion
from evergrant.oauth2.hooks import HOOKS
from evergrant.oauth2.quirks import Quirks, renamed
from evergrant.oauth2.registration import ClientRegistration
from evergrant.oauth2.transport import Http, HttpAnswer

Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Authentication:
    """The parameters and headers that authenticate our client, and the secrets in them, which nobody may see."""

    params: Pairs = ()
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


def hooked(client: ClientRegistration, quirks: Quirks) -> ClientRegistration:
    """Return the client as the hook of its catalogue entry makes it, or as it is where there is no hook.

    Raises:
        UpstreamRejected: the secret is not what the hook needs.
    """
    return HOOKS[quirks.hook](client, quirks.values, clock.now()) if quirks.hook else client


def authentication(client: ClientRegistration, quirks: Quirks, url: str, *, method: str = "") -> Authentication:
    """Return how `client` authenticates at `url`: by its own method, or the one given.

    Raises:
        UpstreamRejected: the secret is not the key that the method needs, or a key that the method would send.
    """
    secret = client.client_secret.get_secret_value() if client.client_secret is not None else ""
    method = method or client.auth_method
    own_id = ("client_id", client.client_id)
    if client.client_secret is None or method == "none":
        return Authentication([own_id])
    if method not in client_assertion.METHODS and client_assertion.is_private_key(secret):
        raise UpstreamRejected(
            f"{client.name or 'The app'}: its client secret is a private key, which is never sent. Set "
            "tokenEndpointAuthMethod to private_key_jwt, or enter another clientSecret.",
            provider_error="invalid_client_key",
        )
    if method == "client_secret_basic":
        # RFC 6749 section 2.3.1: form-urlencode both before they are joined. A space as %20, because servers that
        # decode with a plain unquote leave a "+" as it is.
        pair = f"{quote(client.client_id, safe='')}:{quote(secret, safe='')}"
        credentials = base64.b64encode(pair.encode()).decode()
        return Authentication((), {"Authorization": f"Basic {credentials}"}, (secret, credentials))
    if method in client_assertion.METHODS:
        token = client_assertion.assertion(
            client.client_secret,
            method=method,
            client_id=client.client_id,
            audience=url,
            alg=quirks.signing_alg,
            now=clock.now(),
            who=client.name,
        )
        params = [own_id, ("client_assertion_type", client_assertion.TYPE), ("client_assertion", token)]
        return Authentication(params, {}, (secret, token))
    return Authentication([own_id, ("client_secret", secret)], {}, (secret,))


def request_values(client: ClientRegistration, quirks: Quirks, **more: str) -> dict[str, str]:
    """Return the values of a request that an entry's parameters and headers may use. A private key is none of them."""
    client = hooked(client, quirks)
    secret = client.client_secret.get_secret_value() if client.client_secret is not None else ""
    secret = "" if client_assertion.is_private_key(secret) else secret
    return {"client_id": client.client_id, "client_secret": secret, "random": random.token_urlsafe(16), **more}


async def send_to_token_endpoint(
    http: Http,
    url: str,
    client: ClientRegistration,
    quirks: Quirks,
    params: Pairs,
    *,
    method: Literal["POST", "GET"] | None = None,
) -> tuple[HttpAnswer, tuple[str, ...]]:
    """Authenticate as `client` and send; also return the credentials that were sent, for redaction.

    Raises:
        EgressRefused, UpstreamUnavailable: as `Http.request`. UpstreamRejected: the app lacks something for it.
    """
    client = hooked(client, quirks)
    proof = authentication(client, quirks, url)
    values = request_values(client, Quirks())
    headers = {"Accept": "application/json", **proof.headers, **dict(quirks.fill_all(quirks.token_headers, values))}
    body = renamed([*params, *proof.params], quirks.token_names)
    form = quirks.token_format if method is None else "form"
    answer = await send(http, method or quirks.token_method, url, form, body, headers)
    return answer, (*proof.secrets, *_credentials(headers))


async def send(http: Http, method: str, url: str, form: str, params: Pairs, headers: dict[str, str]) -> HttpAnswer:
    """Send parameters as a form, as JSON or in the query, once.

    Raises:
        EgressRefused, UpstreamUnavailable: as `Http.request`.
    """
    _check_headers(headers)
    if form == "query" or method == "GET":
        query = urlencode(list(params))
        whole = f"{url}{'&' if '?' in url else '?'}{query}" if query else url
        return await http.request(method, whole, headers=headers, content=b"" if method == "POST" else None)
    if form == "json":
        return await send_body(http, method, url, _members(params), headers)
    content = urlencode(list(params)).encode("ascii")
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    return await http.request(method, url, headers={**kind, **headers}, content=content)


async def send_body(
    http: Http, method: str, url: str, body: dict[str, Any] | None, headers: dict[str, str]
) -> HttpAnswer:
    """Send a JSON object, or nothing, once.

    Raises:
        EgressRefused, UpstreamUnavailable: as `Http.request`.
    """
    _check_headers(headers)
    if body is None:
        return await http.request(method, url, headers=headers, content=b"" if method != "GET" else None)
    content = json.dumps(body).encode("ascii")
    return await http.request(method, url, headers={"Content-Type": "application/json", **headers}, content=content)


def _check_headers(headers: dict[str, str]) -> None:
    for value in headers.values():
        if not value.isascii() or not value.isprintable():
            raise UpstreamRejected("A header of this app has characters that no header can have.")


def _members(params: Pairs) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in params:  # one that is repeated (`resource`, RFC 8707) is a list in JSON
        if name not in members:
            members[name] = value
        elif isinstance(members[name], list):
            members[name].append(value)
        else:
            members[name] = [members[name], value]
    return members


def _credentials(headers: dict[str, str]) -> tuple[str, ...]:
    whole = [value for name, value in headers.items() if name.lower() == "authorization"]
    return tuple(value.partition(" ")[2] or value for value in whole)
