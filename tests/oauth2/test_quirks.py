"""Providers that leave the RFCs: what each quirk changes in what is sent, and in how an answer is read."""

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, get_args
from urllib.parse import parse_qsl, urlsplit

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey
from pydantic import SecretStr

from evergrant.errors import ConnectFailed, ReauthorizationRequired, UpstreamRejected, UpstreamUnavailable
from evergrant.oauth2.authorization import AuthorizationResponse, CodeVerifier, authorization_url
from evergrant.oauth2.hooks import HOOKS, HookName
from evergrant.oauth2.quirks import Capture, DeadAnswer, Quirks, ResponseShape, TokenExchange, from_json, to_json
from evergrant.oauth2.registration import ClientRegistration, ServerMetadata
from evergrant.oauth2.token_endpoint import exchange_code, refresh
from evergrant.oauth2.token_response import TokenResponse
from evergrant.oauth2.transport import Http
from tests.conftest import Clock
from tests.infra.scripted import ScriptedProvider, json_answer

TOKENS = json_answer(200, {"access_token": "at-1", "refresh_token": "rt-2", "expires_in": 3600})


class Trial:
    """One client at the scripted provider."""

    def __init__(
        self, http: Http, server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider
    ) -> None:
        self.http, self.server, self.client, self.provider = http, server, client, provider
        provider.answers(TOKENS)

    async def refresh(self, quirks: Quirks, **fields: Any) -> TokenResponse:
        return await refresh(
            self.http, self.server, self.client, refresh_token=SecretStr("rt-1"), quirks=quirks, **fields
        )

    async def exchange(self, quirks: Quirks, **fields: Any) -> TokenResponse:
        fields = {"code": "code-1", "redirect_uri": "https://b.example/cb", "code_verifier": None, **fields}
        return await exchange_code(self.http, self.server, self.client, quirks=quirks, **fields)

    def as_client(self, **fields: Any) -> None:
        self.client = replace(self.client, **fields)

    @property
    def form(self) -> dict[str, str]:
        return self.provider.requests[-1].form


@pytest.fixture
def trial(http: Http, server: ServerMetadata, client: ClientRegistration, provider: ScriptedProvider) -> Trial:
    return Trial(http, server, client, provider)


def parsed(members: Any, quirks: Quirks) -> TokenResponse:
    return TokenResponse.parse(json.dumps(members).encode(), "application/json", quirks)


def asked(server: ServerMetadata, client: ClientRegistration, quirks: Quirks, **fields: Any) -> dict[str, str]:
    url = authorization_url(
        server,
        client,
        **{
            "redirect_uri": "https://b.example/cb",
            "state": "s-1",
            "scopes": ["a", "b"],
            "code_verifier": CodeVerifier.new(),
            "nonce": None,
            "quirks": quirks,
            **fields,
        },
    )
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


# the authorization request and the way back


def test_scopes_are_joined_as_the_provider_wants_them(server: ServerMetadata, client: ClientRegistration) -> None:
    for separator in (" ", ",", "+"):
        assert asked(server, client, Quirks(scope_separator=separator))["scope"] == f"a{separator}b"


def test_parameters_get_their_providers_names_and_some_are_not_sent(
    server: ServerMetadata, client: ClientRegistration
) -> None:
    names = {"client_id": "client_key", "response_type": "", "scope": "user_scope"}
    sent = asked(server, client, Quirks(authorization_names=names))
    assert (sent["client_key"], sent["user_scope"]) == ("client-1", "a b")
    assert sent.keys().isdisjoint({"client_id", "response_type", "scope"})
    assert {"state", "redirect_uri", "code_challenge"} <= sent.keys()


def test_an_apps_parameters_are_filled_with_variables_and_values_of_the_request(
    server: ServerMetadata, client: ClientRegistration
) -> None:
    params = {"again": "{state}", "shop": "{shop}", "n": "{nonce}", "lost": "{other}", "plain": "{not a name}"}
    client = replace(client, authorization_params=tuple(params.items()))
    sent = asked(server, client, Quirks(values={"shop": "acme"}, unset=("other",)), nonce="n-1")
    assert (sent["again"], sent["shop"], sent["n"], sent["plain"]) == ("s-1", "acme", "n-1", "{not a name}")
    assert "lost" not in sent


def test_a_value_cannot_stand_for_another(server: ServerMetadata, client: ClientRegistration) -> None:
    client = replace(client, authorization_params=(("shop", "{shop}"),))
    assert asked(server, client, Quirks(values={"shop": "{state}"}))["shop"] == "{state}"


def test_an_address_is_filled_and_one_without_its_value_is_never_called(
    server: ServerMetadata, client: ClientRegistration
) -> None:
    server = replace(server, authorization_endpoint="https://{shop}.example/authorize")
    url = authorization_url(
        server, client, redirect_uri="", state="s", scopes=[], code_verifier=None, nonce=None,
        quirks=Quirks(values={"shop": "acme"}),
    )  # fmt: skip
    assert url.startswith("https://acme.example/authorize?")
    with pytest.raises(UpstreamRejected, match="Example needs a value for shop"):
        asked(server, client, Quirks())


def test_the_callbacks_own_names_are_understood_and_its_values_captured() -> None:
    quirks = Quirks(
        callback_names={"code": "auth_code", "error": "err"},
        captures=(Capture("realmId", "callback", "realmId"), Capture("other", "token", "/x")),
    )
    response = AuthorizationResponse.parse({"auth_code": "c-1", "state": "s", "realmId": "42"}, quirks)
    assert (response.code, dict(response.captured)) == ("c-1", {"realmId": "42"})
    assert AuthorizationResponse.parse({"err": "denied", "auth_code": "c"}, quirks).error == "denied"
    assert AuthorizationResponse.parse({"code": "c-1"}, quirks).error == "invalid_response"


# the token request


async def test_a_token_request_can_be_json(trial: Trial) -> None:
    await trial.refresh(Quirks(token_format="json", token_names={"client_secret": "secret"}), resources=("r1", "r2"))
    request = trial.provider.requests[0]
    assert (request.method, request.headers["content-type"]) == ("POST", "application/json")
    assert json.loads(request.body) == {
        "grant_type": "refresh_token",
        "refresh_token": "rt-1",
        "client_id": "client-1",
        "secret": "client-secret-1",
        "resource": ["r1", "r2"],
    }


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_token_request_can_be_all_in_the_query(trial: Trial, method: Any) -> None:
    trial.server = replace(trial.server, token_endpoint=f"{trial.provider.url}/token?v=2")
    await trial.exchange(Quirks(token_method=method, token_format="query", token_names={"code": "auth_code"}))
    request = trial.provider.requests[0]
    assert (request.method, request.body) == (method, b"")
    path, _, query = request.target.partition("?")
    sent = dict(parse_qsl(query))
    assert (path, sent["v"], sent["auth_code"], sent["client_secret"]) == ("/token", "2", "code-1", "client-secret-1")


async def test_parameters_of_codes_and_of_refreshes_are_apart_and_the_apps_own_win(trial: Trial) -> None:
    trial.as_client(token_params=(("who", "app"), ("gone", "")))
    quirks = Quirks(
        values={"device": "d-1"},
        token_params={"who": "entry", "gone": "x", "device_id": "{device}", "action": "code", "again": "{state}"},
        refresh_params={"scope": "{scope}", "redirect_uri": "https://e.example", "to": "{redirect_uri}"},
    )
    await trial.exchange(quirks, state="s-1")
    assert trial.form["who"] == "app"
    assert trial.form["again"] == "s-1"
    assert (trial.form["device_id"], trial.form["action"]) == ("d-1", "code")
    assert "gone" not in trial.form
    await trial.refresh(quirks, granted=["a", "b"], redirect_uri="https://b.example/cb")
    assert (trial.form["scope"], trial.form["to"]) == ("a b", "https://b.example/cb")
    assert trial.form["redirect_uri"] == "https://e.example"  # a refresh has none of its own, so an entry may add one
    assert trial.form.keys().isdisjoint({"action", "device_id"})


async def test_headers_of_the_token_request_can_hold_the_clients_values(trial: Trial) -> None:
    await trial.refresh(Quirks(token_headers={"Authorization": "Bearer {client_secret}", "X-Request": "{random}"}))
    headers = trial.provider.requests[0].headers
    assert headers["authorization"] == "Bearer client-secret-1"
    assert len(headers["x-request"]) > 10
    await trial.refresh(Quirks(token_headers={"User-Agent": "ours/1"}))
    assert trial.provider.requests[1].headers["user-agent"] == "ours/1"
    assert trial.provider.requests[1].head.lower().count(b"user-agent") == 1


async def test_a_refresh_can_have_an_address_of_its_own(trial: Trial) -> None:
    quirks = Quirks(refresh_endpoint=trial.provider.url + "/{dc}/refresh", values={"dc": "eu"})
    await trial.refresh(quirks)
    await trial.exchange(quirks)
    assert [request.path for request in trial.provider.requests] == ["/eu/refresh", "/token"]


async def test_the_providers_name_for_our_address_stands_in_both_requests(
    trial: Trial, server: ServerMetadata, client: ClientRegistration
) -> None:
    quirks = Quirks(redirect_uri="{ruName}", values={"ruName": "Acme-RU"}, refresh_params={"to": "{redirect_uri}"})
    assert asked(server, client, quirks)["redirect_uri"] == "Acme-RU"
    await trial.exchange(quirks)
    assert trial.form["redirect_uri"] == "Acme-RU"
    await trial.refresh(quirks, redirect_uri="https://b.example/cb")
    assert trial.form["to"] == "Acme-RU"


async def test_without_the_providers_name_for_our_address_nothing_is_sent(
    trial: Trial, server: ServerMetadata, client: ClientRegistration
) -> None:
    quirks = Quirks(redirect_uri="{ruName}", unset=("ruName",))
    with pytest.raises(UpstreamRejected, match="needs a value for ruName"):
        asked(server, client, quirks)
    with pytest.raises(UpstreamRejected, match="needs a value for ruName"):
        await trial.exchange(quirks)
    assert trial.provider.requests == []


# who we are


def pem(key: Any) -> str:
    form = serialization.PrivateFormat.PKCS8
    text: bytes = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return text.decode()


EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)


async def test_a_private_key_signs_who_we_are_and_is_never_sent(trial: Trial, clock: Clock) -> None:
    for key, kind, alg in ((EC_KEY, ECKey, "ES256"), (RSA_KEY, RSAKey, "RS256")):
        trial.as_client(auth_method="private_key_jwt", client_secret=SecretStr(pem(key)))
        await trial.refresh(Quirks())
        assert trial.form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        token = jwt.decode(trial.form["client_assertion"], kind.import_key(pem(key)))
        assert token.header["alg"] == alg
        claims = token.claims
        assert (claims["iss"], claims["sub"], claims["aud"]) == ("client-1", "client-1", trial.server.token_endpoint)
        assert 0 < claims["exp"] - clock.now.timestamp() <= 300
        assert "client_secret" not in trial.form
    first, second = (request.form["client_assertion"] for request in trial.provider.requests)
    assert first != second


async def test_a_shared_secret_can_sign_too(trial: Trial) -> None:
    trial.as_client(auth_method="client_secret_jwt")
    await trial.refresh(Quirks(signing_alg="HS256"))
    token = jwt.decode(trial.form["client_assertion"], OctKey.import_key("client-secret-1"))
    assert token.header["alg"] == "HS256"
    assert "client-secret-1" not in trial.provider.requests[0].body.decode()


async def test_a_secret_that_is_no_key_is_the_operators_to_mend(trial: Trial) -> None:
    trial.as_client(auth_method="private_key_jwt")
    with pytest.raises(UpstreamRejected, match="must be the private key") as caught:
        await trial.refresh(Quirks())
    assert "client-secret-1" not in caught.value.message
    trial.as_client(client_secret=SecretStr(pem(RSA_KEY)))
    with pytest.raises(UpstreamRejected, match="for ES256"):
        await trial.refresh(Quirks(signing_alg="ES256"))
    assert trial.provider.requests == []


async def test_apples_client_secret_is_signed_for_each_request(trial: Trial, clock: Clock) -> None:
    trial.as_client(client_secret=SecretStr(pem(EC_KEY)))
    await trial.refresh(Quirks(hook="apple_client_secret", values={"team_id": "TEAM", "key_id": "KEY"}))
    token = jwt.decode(trial.form["client_secret"], ECKey.import_key(pem(EC_KEY)))
    assert (token.header["alg"], token.header["kid"]) == ("ES256", "KEY")
    assert token.claims == {
        "iss": "TEAM",
        "sub": "client-1",
        "aud": "https://appleid.apple.com",
        "iat": int(clock.now.timestamp()),
        "exp": int((clock.now + timedelta(minutes=10)).timestamp()),
    }


def test_every_hook_of_the_catalogue_exists() -> None:
    assert set(HOOKS) == set(get_args(HookName))


# the answer


def test_tokens_are_found_where_the_provider_puts_them() -> None:
    shape = ResponseShape(
        access_token=("/authed/0/token", "/data/token"),
        refresh_token=("/data/refresh",),
        expires_in=("/data/left",),
        scope=("/data/scopes",),
    )
    quirks = Quirks(response=shape, captures=(Capture("team", "token", "/team/id"), Capture("n", "token", "/team/n")))
    answer = parsed(
        {
            "data": {"token": "at", "refresh": "rt", "left": "60", "scopes": ["a", "b"]},
            "team": {"id": "T1", "n": 7, "x": {}},
        },
        quirks,
    )
    assert (answer.access_token.get_secret_value(), answer.expires_in, answer.scopes) == ("at", 60, ("a", "b"))
    assert answer.refresh_token is not None
    assert dict(answer.captured) == {"team": "T1", "n": "7"}
    both = parsed({"authed": [{"token": "first"}], "data": {"token": "second"}}, quirks)
    assert both.access_token.get_secret_value() == "first"


@pytest.mark.parametrize(("unit", "given", "seconds"), [("ms", 90_000, 90), ("min", "20", 1200), ("s", 0, None)])
def test_lifetimes_come_in_several_units(unit: Any, given: object, seconds: int | None) -> None:
    quirks = Quirks(response=ResponseShape(expires_unit=unit))
    assert parsed({"access_token": "at", "expires_in": given}, quirks).expires_in == seconds


def test_an_end_can_be_a_moment(clock: Clock) -> None:
    end = clock.now + timedelta(hours=1)
    forms: Mapping[str, object] = {
        "epoch": int(end.timestamp()),
        "epoch_ms": str(int(end.timestamp() * 1000)),
        "iso": end.isoformat().replace("+00:00", "Z"),
    }
    for form, value in forms.items():
        quirks = Quirks(response=ResponseShape(expires_at=("/end",), expires_at_format=form))  # type: ignore[arg-type]
        assert parsed({"access_token": "at", "end": value}, quirks).expires_in == 3600, form
        assert parsed({"access_token": "at", "end": value, "expires_in": 60}, quirks).expires_in == 60
        assert parsed({"access_token": "at", "end": "soon"}, quirks).expires_in is None
        assert parsed({"access_token": "at", "end": 0}, quirks).expires_in is None
        clock.advance(7200)  # an end that has passed is not the absence of an end
        assert parsed({"access_token": "at", "end": value}, quirks).expires_in == 1
        clock.advance(-7200)


async def test_an_error_with_status_200_is_found_where_the_provider_puts_it(trial: Trial) -> None:
    shape = ResponseShape(access_token=("/data/access_token",), error=("/code",), error_description=("/message",))
    trial.provider.answers(
        json_answer(200, {"code": 40105, "message": "no such app", "data": {}}),
        json_answer(200, {"code": 0, "message": "OK", "data": {"access_token": "at"}}),
        json_answer(200, {"code": 0, "message": "OK", "data": {}}),
    )
    with pytest.raises(UpstreamRejected, match="no such app") as caught:
        await trial.refresh(Quirks(response=shape))
    assert caught.value.provider_error == "40105"
    assert (await trial.refresh(Quirks(response=shape))).access_token.get_secret_value() == "at"
    with pytest.raises(UpstreamUnavailable, match="no access token"):
        await trial.refresh(Quirks(response=shape))


async def test_a_providers_own_code_can_mean_that_the_consent_is_dead(trial: Trial) -> None:
    trial.provider.answers(json_answer(400, {"error": {"message": "Error validating", "code": 190}}))
    with pytest.raises(UpstreamRejected):
        await trial.refresh(Quirks())
    with pytest.raises(ReauthorizationRequired, match="Error validating"):
        await trial.refresh(Quirks(dead_refresh_token=(DeadAnswer("190"),)))


# trades of access tokens


def trade(url: str) -> TokenExchange:
    params = {"grant_type": "swap", "old": "{access_token}", "id": "{client_id}", "secret": "{client_secret}"}
    return TokenExchange(("connect", "refresh"), url, "GET", params)


async def test_a_short_lived_token_is_traded_and_takes_the_refresh_tokens_place(trial: Trial) -> None:
    trial.provider.answers(
        json_answer(200, {"access_token": "short", "expires_in": 3600}),
        json_answer(200, {"access_token": "long", "expires_in": 5184000}),
        json_answer(200, {"access_token": "longer", "expires_in": 5184000}),
    )
    quirks = Quirks(token_exchange=(trade(f"{trial.provider.url}/swap"),))
    tokens = await trial.exchange(quirks)
    assert (tokens.access_token, tokens.refresh_token) == (SecretStr("long"), SecretStr("long"))
    assert tokens.expires_in == 5184000
    assert tokens.refresh_token is not None
    again = await refresh(trial.http, trial.server, trial.client, refresh_token=tokens.refresh_token, quirks=quirks)
    assert (again.access_token, again.refresh_token) == (SecretStr("longer"), SecretStr("longer"))
    asked = [urlsplit(request.target) for request in trial.provider.requests[1:]]
    assert [(url.path, dict(parse_qsl(url.query))["old"]) for url in asked] == [("/swap", "short"), ("/swap", "long")]


async def test_what_only_the_first_token_said_is_not_lost_in_the_trade(trial: Trial) -> None:
    trial.provider.answers(
        json_answer(200, {"access_token": "short", "user_id": 17, "scope": "basic", "id_token": "who", "plan": "old"}),
        json_answer(200, {"access_token": "long", "plan": "new"}),
    )
    captures = (Capture("userId", "token", "/user_id"), Capture("plan", "token", "/plan"))
    tokens = await trial.exchange(Quirks(token_exchange=(trade(f"{trial.provider.url}/swap"),), captures=captures))
    assert tokens.access_token == SecretStr("long")
    assert dict(tokens.captured) == {"userId": "17", "plan": "new"}
    assert (tokens.scopes, tokens.id_token) == (("basic",), SecretStr("who"))


async def test_a_refused_trade_ends_the_trip_or_the_consent_and_shows_no_token(trial: Trial) -> None:
    dead = json_answer(401, {"error": "invalid_token", "error_description": "at-1 and rt-1 are no good"})
    quirks = Quirks(token_exchange=(trade(f"{trial.provider.url}/swap"),))
    trial.provider.answers(TOKENS, dead)
    with pytest.raises(ConnectFailed, match="are no good") as refused:
        await trial.exchange(quirks)
    assert "at-1" not in refused.value.message
    with pytest.raises(ReauthorizationRequired) as ended:
        await trial.refresh(quirks)
    assert "rt-1" not in ended.value.message


# stored


def test_quirks_survive_being_stored() -> None:
    quirks = Quirks(
        values={"shop": "acme"},
        token_names={"client_id": "client_key"},
        response=ResponseShape(access_token=("/a", "/b")),
        captures=(Capture("x", "token", "/x"),),
        token_exchange=(trade("https://e.example"),),
    )
    assert from_json(json.loads(json.dumps(to_json(quirks)))) == quirks
    assert to_json(Quirks()) == {}


async def test_what_the_client_sends_as_basic_is_never_shown(trial: Trial) -> None:
    trial.as_client(auth_method="client_secret_basic")
    credentials = base64.b64encode(b"client-1:client-secret-1").decode()
    trial.provider.answers(json_answer(400, {"error": "bad", "error_description": f"got {credentials}"}))
    with pytest.raises(UpstreamRejected) as caught:
        await trial.refresh(Quirks(token_format="json"))
    assert credentials not in caught.value.message
