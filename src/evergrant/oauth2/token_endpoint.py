"""The token endpoint (RFC 6749 sections 4.1.3 and 6), and what some providers have in its place."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from pydantic import SecretStr

from evergrant.errors import ConnectFailed, EvergrantError, ReauthorizationRequired, Refusal, UpstreamRejected
from evergrant.oauth2.authorization import CodeVerifier
from evergrant.oauth2.error_words import ACCESS_TOKEN, CODE, REFRESH_TOKEN, Presented
from evergrant.oauth2.failures import failure_of, moved, not_a_token_response
from evergrant.oauth2.odd_parts import part_or
from evergrant.oauth2.quirks import NO_QUIRKS, Quirks, TokenExchange
from evergrant.oauth2.registration import ClientRegistration, ServerMetadata
from evergrant.oauth2.token_request import Pairs, hooked, request_values, send, send_to_token_endpoint
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
"""Parameters that only this file sets: an app's own token parameters may not."""


async def exchange_code(
    http: Http,
    server: ServerMetadata,
    client: ClientRegistration,
    *,
    code: str,
    redirect_uri: str,
    code_verifier: CodeVerifier | None,
    resources: Sequence[str] = (),
    scopes: Sequence[str] = (),
    state: str = "",
    nonce: str = "",
    quirks: Quirks = NO_QUIRKS,
    redeemed: Callable[[TokenResponse], None] = lambda _: None,
) -> TokenResponse:
    """Redeem an authorization code (RFC 6749 section 4.1.3, RFC 7636 section 4.5, RFC 8707 section 2.2).

    Where the provider trades the token that comes for another, that is done too. `scopes`, `state` and
    `nonce` are those of the authorization request; they are sent where a quirk says so. `redeemed` is told of the first
    token before it is traded, which may fail.

    Raises:
        ConnectFailed: `invalid_grant`: the code is expired, used or not ours; the user starts again.
        UpstreamRejected: the app's registration is wrong.
        UpstreamUnavailable: the provider is away, or what it answered is not a token response.
    """
    redirect_uri = quirks.redirect(redirect_uri, client.name)
    verifier = code_verifier.secret() if code_verifier is not None else ""
    scope = quirks.scope(scopes, client.name)
    values = request_values(client, quirks, scope=scope, redirect_uri=redirect_uri, state=state, nonce=nonce)
    params = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", redirect_uri),
        ("code_verifier", verifier),
        *extra_params(client, quirks, quirks.token_params, values, resources),
    ]

    def failed(text: str, _: str) -> ConnectFailed:
        return ConnectFailed("invalid_grant", f"{text} Connect again.")

    url = quirks.url(server.token_endpoint, client.name)
    answer, credentials = await send_to_token_endpoint(http, url, client, quirks, params)
    tokens = tokens_in(answer, client, quirks, (code, verifier, *credentials), CODE, failed)
    redeemed(tokens)
    for step in quirks.exchanges("connect"):
        traded = await _trade(http, client, quirks, step, tokens.access_token, failed)
        # Who it is, and what was granted, is often said with the first token only.
        tokens = replace(
            traded,
            scopes=tokens.scopes if traded.scopes is None else traded.scopes,
            id_token=traded.id_token or tokens.id_token,
            captured={**tokens.captured, **traded.captured},
        )
    return _renewable(tokens, quirks)


async def refresh(
    http: Http,
    server: ServerMetadata,
    client: ClientRegistration,
    *,
    refresh_token: SecretStr,
    scopes: Sequence[str] = (),
    resources: Sequence[str] = (),
    granted: Sequence[str] = (),
    redirect_uri: str = "",
    quirks: Quirks = NO_QUIRKS,
) -> TokenResponse:
    """Trade a refresh token for an access token (RFC 6749 section 6, RFC 8707 section 2.2).

    Without `scopes`, all of them stay. `granted`, the scopes that there are, and `redirect_uri` are sent where a quirk
    says so. Where the provider trades access tokens instead, `refresh_token` is the current access token.

    Raises:
        ReauthorizationRequired: the refresh token is dead for good.
        UpstreamRejected: the provider refuses the app or what was asked; the grant may be innocent.
        UpstreamUnavailable: later. Whether the provider rotated the refresh token is unknown.
    """
    token = refresh_token
    for step in quirks.exchanges("refresh"):
        tokens = await _trade(http, client, quirks, step, token, consent_ended)
        token = tokens.access_token
    if token is not refresh_token:
        return _renewable(tokens, quirks)
    values = request_values(
        client,
        quirks,
        scope=quirks.scope(scopes or granted, client.name),
        redirect_uri=quirks.redirect(redirect_uri, client.name),
    )
    params = [
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh_token.get_secret_value()),
        ("scope", quirks.scope(scopes, client.name)),
        *extra_params(client, quirks, quirks.refresh_params, values, resources, without={"scope"} if scopes else set()),
    ]
    url = quirks.url(quirks.refresh_endpoint or server.token_endpoint, client.name)
    answer, credentials = await send_to_token_endpoint(http, url, client, quirks, params)
    return tokens_in(
        answer, client, quirks, (refresh_token.get_secret_value(), *credentials), REFRESH_TOKEN, consent_ended
    )


def consent_ended(text: str, code: str) -> ReauthorizationRequired:
    """Make the error for a consent that is dead, from the explanation and the provider's error code."""
    message = text + CONNECT_AGAIN
    return ReauthorizationRequired(message, last_refresh_error=message, provider_error=code)


async def _trade(
    http: Http,
    client: ClientRegistration,
    quirks: Quirks,
    step: TokenExchange,
    token: SecretStr,
    when_dead: Callable[[str, str], EvergrantError],
) -> TokenResponse:
    """Trade one access token for another, by the provider's own call."""
    client = hooked(client, quirks)
    values = request_values(client, NO_QUIRKS, access_token=token.get_secret_value())
    url = quirks.url(step.url, client.name)
    form = "query" if step.method == "GET" else "form"
    params = quirks.fill_all(step.params, values)
    answer = await send(http, step.method, url, form, params, {"Accept": "application/json"})
    sent = (token.get_secret_value(), values["client_secret"])
    return tokens_in(answer, client, quirks, sent, ACCESS_TOKEN, when_dead)


def _renewable(tokens: TokenResponse, quirks: Quirks) -> TokenResponse:
    """Put the access token in the refresh token's place where the provider trades access tokens for the next ones."""
    if not quirks.exchanges("refresh"):
        return tokens
    return replace(tokens, refresh_token=tokens.access_token, refresh_token_expires_in=tokens.expires_in)


def tokens_in(
    answer: HttpAnswer,
    client: ClientRegistration,
    quirks: Quirks,
    secrets: Iterable[str],
    presented: Presented,
    when_dead: Callable[[str, str], EvergrantError],
) -> TokenResponse:
    """Return the tokens in an answer. `secrets` were sent, and stand in no message.

    Raises:
        EvergrantError: there are none, as `failure_of` says it.
    """
    secrets = tuple(secrets)

    def said() -> EvergrantError | None:
        return moved(answer, client_name=client.name, secrets=secrets) or failure_of(
            answer, client_name=client.name, secrets=secrets, presented=presented, when_dead=when_dead, quirks=quirks
        )

    # Where even that fails, there may be tokens in the answer all the same.
    failure = part_or(None, "failure", said)
    if failure is not None:
        raise _with_hint(failure, client)
    try:
        return TokenResponse.parse(answer.body, answer.headers.get("content-type", ""), quirks)
    except InvalidTokenResponse as error:
        raise not_a_token_response(client.name, str(error)) from None


def _with_hint(failure: EvergrantError, client: ClientRegistration) -> EvergrantError:
    """Say of a client that was refused how its secret was sent: servers differ, whatever their metadata says."""
    if not isinstance(failure, UpstreamRejected) or failure.refusal not in (Refusal.CLIENT_UNKNOWN, Refusal.UNSAID):
        return failure
    hint = _OTHER_METHOD.get(client.auth_method)
    if hint is None or client.client_secret is None:
        return failure
    return failure.reworded(f"{failure.message} {hint}", type(failure))


_OTHER_METHOD = {
    "client_secret_basic": "If the secret is right, set tokenEndpointAuthMethod to client_secret_post: not every "
    "server takes or decodes Basic (+ / = : %).",
    "client_secret_post": "If the secret is right, set tokenEndpointAuthMethod to client_secret_basic.",
}


def extra_params(
    client: ClientRegistration,
    quirks: Quirks,
    theirs: Mapping[str, str],
    values: Mapping[str, str],
    resources: Sequence[str],
    *,
    without: set[str] | None = None,
) -> Pairs:
    """Return the additional parameters: the provider's, unless the app sets the same name; an empty one removes it."""
    taken = ({"resource"} if resources else set()) | (without or set())
    # The catalogue has checked its entries, which may send `redirect_uri` at a refresh; an app may set nothing of ours.
    ours = [(name, text) for name, text in client.token_params if name not in _RESERVED]
    own = {name for name, _ in ours}
    wanted = [*((name, text) for name, text in theirs.items() if name not in own), *ours]
    filled = quirks.fill_all([(name, text) for name, text in wanted if name not in taken], values)
    return [*(("resource", resource) for resource in resources), *filled]
