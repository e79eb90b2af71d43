"""Obtains tokens from credentials that stay: no refresh token is used up, and no answer that is lost loses anything.

Client credentials (RFC 6749 section 4.4), signed assertions (RFC 7523 section 2.1), JWTs that are the token themselves,
and providers' own login calls. `fields` are what a connection brought, opened; they stand in nothing that is shown.
"""

import base64
import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import SecretStr

from evergrant import clock
from evergrant.app_types import AppType
from evergrant.errors import EvergrantError, UpstreamRejected
from evergrant.oauth2 import signed_assertion
from evergrant.oauth2.client_assertion import is_private_key
from evergrant.oauth2.error_words import CREDENTIALS
from evergrant.oauth2.failures import failure_of, moved
from evergrant.oauth2.lenient_json import read_json, read_text
from evergrant.oauth2.pointers import find
from evergrant.oauth2.quirks import NO_QUIRKS, Quirks
from evergrant.oauth2.registration import ClientRegistration, ServerMetadata
from evergrant.oauth2.source_types import LoginStep
from evergrant.oauth2.token_endpoint import extra_params, tokens_in
from evergrant.oauth2.token_request import Pairs, request_values, send, send_body, send_to_token_endpoint
from evergrant.oauth2.token_response import TokenResponse
from evergrant.oauth2.transport import Http, HttpAnswer

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
Fields = Mapping[str, str]


async def obtain(
    http: Http,
    server: ServerMetadata,
    client: ClientRegistration,
    kind: AppType,
    *,
    fields: Fields,
    scopes: Sequence[str] = (),
    resources: Sequence[str] = (),
    quirks: Quirks = NO_QUIRKS,
) -> TokenResponse:
    """Obtain an access token.

    Where a connection has a client of its own, its fields `client_id` and `client_secret` stand in for the app's.

    Raises:
        UpstreamRejected: the provider refuses the credentials or what was asked (`GrantRefused`), or the credentials
            are not what signing needs. Nothing has ended: the same credentials may be good later.
        UpstreamUnavailable: later.
    """
    client, quirks = with_own_client(client, fields), replace(quirks, dead_refresh_token=())
    scope = quirks.scope(scopes, client.name)
    if kind is AppType.CLIENT_CREDENTIALS:
        params = [("grant_type", "client_credentials"), ("scope", scope)]
        return await _from_token_endpoint(http, server, client, params, fields, scope, resources, quirks)
    values = {**request_values(client, quirks, scope=scope), **fields}
    if quirks.assertion is not None:
        values["assertion"] = signed_assertion.sign(quirks.assertion, client, quirks, values, now=clock.now())
    if kind is AppType.JWT_BEARER:
        params = [("grant_type", JWT_BEARER), ("assertion", values["assertion"])]
        return await _from_token_endpoint(http, server, client, params, fields, scope, resources, quirks)
    if kind is AppType.SIGNED_JWT:
        assert quirks.assertion is not None  # noqa: S101 - its entry has one; this tells the type checker
        return TokenResponse(SecretStr(values["assertion"]), "Bearer", quirks.assertion.seconds, None, None, None)
    return await _from_login(http, client, values, fields, quirks)


def with_own_client(client: ClientRegistration, fields: Fields) -> ClientRegistration:
    """Return the client that a connection brings, or the app's where it brings none."""
    if not fields.get("client_id"):
        return client
    secret = SecretStr(fields["client_secret"]) if fields.get("client_secret") else None
    method = client.auth_method if client.auth_method != "none" or secret is None else "client_secret_post"
    return replace(client, client_id=fields["client_id"], client_secret=secret, auth_method=method)


async def _from_token_endpoint(
    http: Http,
    server: ServerMetadata,
    client: ClientRegistration,
    params: Pairs,
    fields: Fields,
    scope: str,
    resources: Sequence[str],
    quirks: Quirks,
) -> TokenResponse:
    values = {**request_values(client, quirks, scope=scope), **_never_signing(quirks, fields)}
    without = {name for name, value in params if value}
    extra = extra_params(client, quirks, quirks.token_params, values, resources, without=without)
    url = quirks.url(server.token_endpoint, client.name)
    answer, sent = await send_to_token_endpoint(http, url, client, quirks, [*params, *extra])
    secrets = (*sent, *fields.values(), *(value for name, value in params if name == "assertion"))
    return _without_refresh_token(tokens_in(answer, client, quirks, secrets, CREDENTIALS, _refused))


def _never_signing(quirks: Quirks, fields: Fields) -> dict[str, str]:
    """Return the fields that a request may hold as they are: none that signs, whatever an app's parameters ask for."""
    key = quirks.fill(quirks.assertion.key, fields) if quirks.assertion is not None else ""
    signs = {name for name, value in fields.items() if is_private_key(value) or (key and key in value)}
    return {name: value for name, value in fields.items() if name not in signs}


async def _from_login(
    http: Http, client: ClientRegistration, values: dict[str, str], fields: Fields, quirks: Quirks
) -> TokenResponse:
    """Go through the requests of a login; each may use what those before have brought."""
    kept: dict[str, str] = {}
    answer: HttpAnswer | None = None
    secrets = (*fields.values(), values.get("client_secret", ""), values.get("assertion", ""))
    for step in quirks.login:
        headers = _headers(step, {**values, **kept}, quirks)
        secrets = (*secrets, *(value.partition(" ")[2] for value in headers.values()))
        answer = await _send_step(http, client, step, {**values, **kept}, headers, quirks)
        found = (*secrets, *kept.values())
        failure = moved(answer, client_name=client.name, secrets=found) or failure_of(
            answer, client_name=client.name, secrets=found, presented=CREDENTIALS, when_dead=_refused, quirks=quirks
        )
        if failure is not None:
            raise failure
        kept |= _kept(client, step, answer)
    assert answer is not None  # noqa: S101 - its entry has a step; this tells the type checker
    return _without_refresh_token(tokens_in(answer, client, quirks, (*secrets, *kept.values()), CREDENTIALS, _refused))


def _headers(step: LoginStep, values: Mapping[str, str], quirks: Quirks) -> dict[str, str]:
    headers = {"Accept": "application/json", **dict(quirks.fill_all(step.headers, values))}
    if step.basic:
        headers["Authorization"] = f"Basic {base64.b64encode(quirks.fill(step.basic, values).encode()).decode()}"
    return headers


async def _send_step(
    http: Http,
    client: ClientRegistration,
    step: LoginStep,
    values: Mapping[str, str],
    headers: dict[str, str],
    quirks: Quirks,
) -> HttpAnswer:
    url = quirks.url(step.url, client.name, values)
    body = filled_body(step.body, functools.partial(_filled, quirks, values))
    if step.format == "json":
        return await send_body(http, step.method, url, body if step.body else None, headers)
    params = [(name, value) for name, value in body.items() if isinstance(value, str)]
    return await send(http, step.method, url, step.format, params, headers)


def _filled(quirks: Quirks, values: Mapping[str, str], text: str) -> str:
    pairs = quirks.fill_all([("text", text)], values)
    return pairs[0][1] if pairs else ""


def filled_body(value: Mapping[str, Any], fill: Any) -> dict[str, Any]:
    """Fill every text of a body, however deep; those that come out empty are left out."""
    return {name: item for name, raw in value.items() if (item := _filled_item(raw, fill)) not in ("", None)}


def _filled_item(value: Any, fill: Any) -> Any:
    if isinstance(value, str):
        return fill(value)
    if isinstance(value, Mapping):
        return filled_body(value, fill)
    if isinstance(value, Sequence):
        return [_filled_item(item, fill) for item in value]
    return value


def _kept(client: ClientRegistration, step: LoginStep, answer: HttpAnswer) -> dict[str, str]:
    if not step.keep:
        return {}
    try:
        said = read_json(read_text(answer.body, answer.headers.get("content-type", "")).strip())
    except ValueError:
        said = None
    found = {name: find(said, pointer) for name, pointer in step.keep.items()}
    missing = [name for name, value in found.items() if isinstance(value, bool) or not isinstance(value, (str, int))]
    if missing:
        raise UpstreamRejected(
            f"{client.name or 'The provider'}: the login's answer lacks {', '.join(missing)}.",
            provider_error="invalid_response",
        )
    return {name: str(value) for name, value in found.items()}


def _refused(text: str, code: str) -> EvergrantError:
    raise AssertionError(f"credentials cannot be used up: {code} {text}")


def _without_refresh_token(tokens: TokenResponse) -> TokenResponse:
    """Leave out a refresh token (RFC 6749 section 4.4.3 says none): what obtains the next token is there already."""
    return replace(tokens, refresh_token=None, refresh_token_expires_in=None)
