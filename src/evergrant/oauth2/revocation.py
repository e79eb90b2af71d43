"""Revokes tokens: at the revocation endpoint (RFC 7009), or in a provider's own way."""

from urllib.parse import quote

from pydantic import SecretStr

from evergrant.errors import EvergrantError, UpstreamRejected
from evergrant.oauth2.error_words import ACCESS_TOKEN
from evergrant.oauth2.failures import failure_of
from evergrant.oauth2.quirks import NO_QUIRKS, Quirks, RevocationStyle
from evergrant.oauth2.registration import ClientRegistration, ServerMetadata
from evergrant.oauth2.token_request import authentication, hooked, request_values, send, send_to_token_endpoint
from evergrant.oauth2.token_response import parse_body
from evergrant.oauth2.transport import Http, HttpAnswer


async def revoke(
    http: Http,
    server: ServerMetadata,
    client: ClientRegistration,
    *,
    token: SecretStr,
    token_type_hint: str,
    quirks: Quirks = NO_QUIRKS,
) -> None:
    """Revoke `token` at the provider. After it returns, the token does not work there.

    `token_type_hint` is `refresh_token` or `access_token`. Where the server has no revocation endpoint, the provider's
    own way counts.

    Raises:
        UpstreamRejected: the provider can't or won't (`unsupported_token_type`, no revocation endpoint, ...).
        UpstreamUnavailable: later.
    """
    text, gone = token.get_secret_value(), False
    if server.revocation_endpoint:
        url = quirks.url(server.revocation_endpoint, client.name)
        params = [("token", text), ("token_type_hint", token_type_hint)]
        answer, secrets = await send_to_token_endpoint(http, url, client, quirks, params, method="POST")
        if 200 <= answer.status < 300:
            return  # RFC 7009 section 2.2: the status is the answer, the body is not looked at
    elif quirks.revocation is not None:
        answer, secrets = await _in_their_way(http, client, quirks, quirks.revocation, text)
        if 200 <= answer.status < 300 and parse_body(answer.body, answer.headers.get("content-type", "")) is None:
            return
        gone = quirks.revocation.method == "DELETE" and answer.status in (404, 410)
    else:
        raise UpstreamRejected(
            f"{client.name or 'The provider'} has no revocation endpoint.", provider_error="unsupported"
        )
    failure = failure_of(
        answer,
        client_name=client.name,
        secrets=(text, *secrets),
        presented=ACCESS_TOKEN,
        when_dead=lambda said, _: _AlreadyRevoked(said),
        quirks=quirks,
    )
    if failure is not None and not gone and not isinstance(failure, _AlreadyRevoked):
        raise failure


class _AlreadyRevoked(EvergrantError):
    """The token did not work any more, so there is nothing to revoke."""


async def _in_their_way(
    http: Http, client: ClientRegistration, quirks: Quirks, style: RevocationStyle, token: str
) -> tuple[HttpAnswer, tuple[str, ...]]:
    client = hooked(client, quirks)
    values = request_values(client, NO_QUIRKS, token=token)
    in_path = {name: quote(values[name], safe="") for name in ("client_id", "token")}
    url = quirks.url(style.url, client.name, in_path)
    headers, params = {"Accept": "application/json"}, quirks.fill_all(style.params, values)
    secrets: tuple[str, ...] = (values["client_secret"],)
    if style.auth == "bearer":
        headers["Authorization"] = f"Bearer {token}"
    elif style.auth != "none":
        if style.auth == "client":
            headers |= dict(quirks.fill_all(quirks.token_headers, values))
        proof = authentication(client, quirks, url, method="client_secret_basic" if style.auth == "basic" else "")
        headers |= proof.headers
        params, secrets = [*params, *proof.params], (*secrets, *proof.secrets)
    headers |= dict(quirks.fill_all(style.headers, values))
    return await send(http, style.method, url, style.format, params, headers), secrets
