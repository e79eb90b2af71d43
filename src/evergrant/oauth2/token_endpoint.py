"""The token endpoint (RFC 6749 sections 4.1.3 and 6) and the revocation endpoint (RFC 7009).

Authlib builds the requests; `Http` sends each exactly once; `failures` translates what goes wrong.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import cast
from urllib.parse import parse_qsl, quote, urlencode

from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_token_request
from authlib.oauth2.rfc7009 import prepare_revoke_token_request
from pydantic import SecretStr

from evergrant.errors import ConnectFailed, EvergrantError, ReauthorizationRequired, UpstreamRejected
from evergrant.oauth2.authorization import CodeVerifier
from evergrant.oauth2.failures import DEAD_CODE, DEAD_GRANT, DEAD_TOKEN, failure_of, not_a_token_response
from evergrant.oauth2.registration import ClientRegistration, ServerMetadata
from evergrant.oauth2.token_response import InvalidTokenResponse, TokenResponse
from evergrant.oauth2.transport import Http, HttpAnswer

CONNECT_AGAIN = " The user must connect again."
"""Ends the message about a consent that is dead."""
_RESERVED = frozenset(
    {
        "grant_type",
        "code",
        "code_verifier",
        "refresh_token",
        "redirect_uri",
        "client_id",
        "client_secret",
        "client_assertion",
        "client_assertion_type",
    }
)
"""What only this file sets: an app's own token parameters may not."""


async def exchange_code(
    http: Http,
    server: ServerMetadata,
    client: ClientRegistration,
    *,
    code: str,
    redirect_uri: str,
    code_verifier: CodeVerifier | None,
    resources: Sequence[str] = (),
) -> TokenResponse:
    """Redeem an authorization code (RFC 6749 section 4.1.3, RFC 7636 section 4.5, RFC 8707 section 2.2).

    Raises:
        ConnectFailed: `invalid_grant`: the code is expired, used or not ours; the user starts again.
        UpstreamRejected: the app's registration is wrong.
        UpstreamUnavailable: the provider is away, or what it answered is not a token response.
    """
    verifier = code_verifier.secret() if code_verifier is not None else ""
    body = prepare_token_request(
        "authorization_code",
        body=urlencode([("resource", resource) for resource in resources] + _own_params(client, resources, ())),
        redirect_uri=redirect_uri,
        code=code,
        code_verifier=verifier or None,
    )
    return await _token_request(
        http,
        server,
        client,
        body,
        secrets=(code, verifier),
        dead=DEAD_CODE,
        when_dead=lambda text, _: ConnectFailed("invalid_grant", f"{text} Connect again."),
    )


async def refresh(
    http: Http,
    server: ServerMetadata,
    client: ClientRegistration,
    *,
    refresh_token: SecretStr,
    scopes: Sequence[str] = (),
    resources: Sequence[str] = (),
) -> TokenResponse:
    """Trade a refresh token for an access token (RFC 6749 section 6, RFC 8707 section 2.2).

    Without `scopes`, all of them stay.

    Raises:
        ReauthorizationRequired: the refresh token is dead for good.
        UpstreamRejected: the app's registration is wrong; the grant is innocent.
        UpstreamUnavailable: later. Whether the provider rotated the refresh token is unknown.
    """
    parameters = {"refresh_token": refresh_token.get_secret_value()}
    if scopes:
        parameters["scope"] = " ".join(scopes)
    own = [("resource", resource) for resource in resources] + _own_params(client, resources, scopes)
    body = prepare_token_request("refresh_token", body=urlencode(own), **parameters)

    def reauthorize(text: str, code: str) -> ReauthorizationRequired:
        message = text + CONNECT_AGAIN
        return ReauthorizationRequired(message, last_refresh_error=message, provider_error=code)

    return await _token_request(
        http,
        server,
        client,
        body,
        secrets=(refresh_token.get_secret_value(),),
        dead=DEAD_GRANT,
        when_dead=reauthorize,
    )


async def revoke(
    http: Http, server: ServerMetadata, client: ClientRegistration, *, token: SecretStr, token_type_hint: str
) -> None:
    """Revoke `token` at the provider (RFC 7009). Return = it no longer works there, or already did not.

    `token_type_hint` is `refresh_token` or `access_token`.

    Raises:
        UpstreamRejected: the provider can't or won't (`unsupported_token_type`, no revocation endpoint, ...).
        UpstreamUnavailable: later.
    """
    if not server.revocation_endpoint:
        raise UpstreamRejected(
            f"{client.name or 'The provider'} has no revocation endpoint.", provider_error="unsupported"
        )
    body, _ = prepare_revoke_token_request(token.get_secret_value(), token_type_hint)
    answer, secrets = await _post(http, server.revocation_endpoint, client, body)
    if 200 <= answer.status < 300:
        return  # RFC 7009 section 2.2: the status is the answer, the body is not looked at
    failure = failure_of(
        answer,
        client_name=client.name,
        secrets=(token.get_secret_value(), *secrets),
        dead=DEAD_TOKEN,
        when_dead=lambda text, _: _AlreadyRevoked(text),
    )
    if failure is not None and not isinstance(failure, _AlreadyRevoked):
        raise failure


class _AlreadyRevoked(EvergrantError):
    """The token did not work any more: what revoking is for has been reached."""


async def _token_request(
    http: Http,
    server: ServerMetadata,
    client: ClientRegistration,
    body: str,
    *,
    secrets: Iterable[str],
    dead: frozenset[str],
    when_dead: Callable[[str, str], EvergrantError],
) -> TokenResponse:
    answer, credentials = await _post(http, server.token_endpoint, client, body)
    failure = failure_of(
        answer, client_name=client.name, secrets=(*secrets, *credentials), dead=dead, when_dead=when_dead
    )
    if failure is not None:
        raise failure
    try:
        return TokenResponse.parse(answer.body, answer.headers.get("content-type", ""))
    except InvalidTokenResponse as error:
        raise not_a_token_response(client.name, str(error)) from None


async def _post(http: Http, url: str, client: ClientRegistration, body: str) -> tuple[HttpAnswer, tuple[str, ...]]:
    """Authenticate as `client` and send; also return the credentials that were sent, for redaction."""
    secret = client.client_secret.get_secret_value() if client.client_secret is not None else ""
    method = "none" if client.client_secret is None else client.auth_method
    client_id = client.client_id
    if method == "client_secret_basic":
        # RFC 6749 section 2.3.1: form-urlencode both before they are joined, which Authlib doesn't. A space as %20,
        # because servers that decode with a plain unquote, Authlib's among them, leave a "+" as it is.
        auth = ClientAuth(quote(client_id, safe=""), quote(secret, safe=""), method)
    else:
        auth = ClientAuth(client_id, secret, method)
    headers = {"Accept": "application/json"}
    _, headers, body = auth.prepare("POST", url, headers, body)
    answer = await http.post_form(url, cast(list[tuple[str, str]], parse_qsl(body, keep_blank_values=True)), headers)
    basic = headers.get("Authorization", "").removeprefix("Basic ")
    return answer, (secret, basic)


def _own_params(client: ClientRegistration, resources: Sequence[str], scopes: Sequence[str]) -> list[tuple[str, str]]:
    taken = _RESERVED | ({"resource"} if resources else set()) | ({"scope"} if scopes else set())
    return [(name, value) for name, value in client.token_params if name not in taken]
