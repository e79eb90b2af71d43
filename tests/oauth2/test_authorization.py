"""The authorization request, PKCE, and the callback's parameters."""

from dataclasses import replace
from urllib.parse import parse_qsl, urlsplit

import pytest

from evergrant.errors import ConnectFailed
from evergrant.oauth2.authorization import (
    AuthorizationResponse,
    CodeVerifier,
    authorization_url,
    check_issuer,
)
from evergrant.oauth2.quirks import Quirks
from evergrant.oauth2.registration import ClientRegistration, ServerMetadata

SERVER = ServerMetadata(issuer="https://provider.example", authorization_endpoint="https://provider.example/authorize")
CLIENT = ClientRegistration(client_id="client-1", client_secret=None, auth_method="none")
VERIFIER = CodeVerifier.from_secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")


def url_for(
    server: ServerMetadata = SERVER,
    client: ClientRegistration = CLIENT,
    *,
    scopes: tuple[str, ...] = ("read", "write"),
    code_verifier: CodeVerifier | None = VERIFIER,
    nonce: str | None = None,
    prompt: tuple[str, ...] = (),
    login_hint: str = "",
    resources: tuple[str, ...] = (),
) -> str:
    return authorization_url(
        server,
        client,
        redirect_uri="https://broker.example/callback",
        state="state-1",
        scopes=scopes,
        code_verifier=code_verifier,
        nonce=nonce,
        prompt=prompt,
        login_hint=login_hint,
        resources=resources,
    )


def parameters(url: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(url).query, keep_blank_values=True)


def test_the_request_has_what_the_rfc_asks_for_once_each() -> None:
    url = url_for()
    assert url.startswith("https://provider.example/authorize?")
    assert dict(parameters(url)) == {
        "response_type": "code",
        "client_id": "client-1",
        "redirect_uri": "https://broker.example/callback",
        "scope": "read write",
        "state": "state-1",
        # the verifier and challenge of RFC 7636 appendix B
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        "code_challenge_method": "S256",
    }
    assert len(parameters(url)) == 7


def test_what_is_empty_is_left_out() -> None:
    names = {name for name, _ in parameters(url_for(scopes=(), code_verifier=None))}
    assert names == {"response_type", "client_id", "redirect_uri", "state"}


def test_openid_login_and_resource_parameters_are_sent() -> None:
    client = replace(CLIENT, access_type="offline")
    sent = parameters(
        url_for(
            client=client,
            nonce="nonce-1",
            prompt=("login", "consent"),
            login_hint="ann@example.com",
            resources=("https://a.example", "https://b.example"),
        )
    )
    assert ("access_type", "offline") in sent
    assert ("nonce", "nonce-1") in sent
    assert ("prompt", "login consent") in sent
    assert ("login_hint", "ann@example.com") in sent
    assert [value for name, value in sent if name == "resource"] == ["https://a.example", "https://b.example"]


def test_the_apps_own_parameters_are_added_and_the_endpoints_query_is_kept() -> None:
    server = replace(SERVER, authorization_endpoint="https://provider.example/authorize?tenant=t1")
    client = replace(CLIENT, authorization_params=(("audience", "api"), ("uri", "x"), ("audience", "b")))
    sent = parameters(url_for(server, client))
    assert ("tenant", "t1") in sent
    assert ("uri", "x") in sent
    assert [value for name, value in sent if name == "audience"] == ["api", "b"]


def test_a_pages_name_in_the_endpoints_query_is_no_request_object() -> None:
    server = replace(SERVER, authorization_endpoint="https://provider.example/authorize?request=authorize")
    assert ("request", "authorize") in parameters(url_for(server))


def test_where_a_fragment_chooses_the_page_the_parameters_stand_behind_it() -> None:
    server = replace(
        SERVER, authorization_endpoint="https://provider.example/a?v=1&state=x#/oauth/authorize?state=y&t=2"
    )
    parts = urlsplit(url_for(server))
    assert (parts.path, parts.query) == ("/a", "v=1")
    page, _, behind = parts.fragment.partition("?")
    assert page == "/oauth/authorize"
    assert "scope=read%20write" in behind
    assert parse_qsl(behind)[0] == ("t", "2")
    assert parse_qsl(behind)[1:] == parameters(url_for())


def test_another_fragment_stays_at_the_end() -> None:
    plain = url_for()
    server = replace(SERVER, authorization_endpoint=SERVER.authorization_endpoint + "#wechat_redirect")
    assert url_for(server) == plain + "#wechat_redirect"


@pytest.mark.parametrize(
    "name",
    [
        "state",
        "redirect_uri",
        "response_type",
        "client_id",
        "code_challenge",
        "code_challenge_method",
        "nonce",
        "scope",
        "prompt",
        "access_type",
        "request",
        "request_uri",
    ],
)
def test_neither_an_apps_parameter_nor_the_endpoints_query_replaces_what_the_request_sets(name: str) -> None:
    server = replace(SERVER, authorization_endpoint=f"https://provider.example/authorize?{name}=e.v.il")
    client = replace(CLIENT, access_type="offline", authorization_params=((name, "e.v.il"),))
    sent = parameters(url_for(server, client, nonce="nonce-1", prompt=("login",)))
    assert "e.v.il" not in [value for _, value in sent]
    assert [n for n, _ in sent].count(name) == (0 if name.startswith("request") else 1)


def test_an_app_may_set_what_the_request_leaves_open() -> None:
    client = replace(CLIENT, authorization_params=(("prompt", "consent"), ("scope", "fixed")))
    sent = parameters(url_for(client=client, scopes=()))
    assert ("prompt", "consent") in sent
    assert ("scope", "fixed") in sent


def test_a_code_verifier_is_new_each_time_long_enough_and_does_not_print_itself() -> None:
    first, second = CodeVerifier.new(), CodeVerifier.new()
    assert first.secret() != second.secret()
    assert 43 <= len(first.secret()) <= 128
    assert first.secret() not in f"{first!r} {first}"
    assert CodeVerifier.from_secret(first.secret()) == first


@pytest.mark.parametrize("text", ["", "short", "x" * 129, "x" * 42 + "é", "x" * 42 + " ", "x" * 42 + "/"])
def test_what_is_no_code_verifier_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="43 to 128"):
        CodeVerifier.from_secret(text)


def test_a_code_comes_back() -> None:
    response = AuthorizationResponse.parse({"code": "c-1", "state": "s-1", "iss": "https://provider.example"})
    assert (response.code, response.state, response.iss, response.error) == (
        "c-1",
        "s-1",
        "https://provider.example",
        "",
    )
    assert "c-1" not in repr(response)
    assert "s-1" not in repr(response)


def test_an_error_comes_back_cleaned_and_cut_and_wins_over_a_code() -> None:
    response = AuthorizationResponse.parse(
        {"error": "access_denied\r\n", "error_description": "no\x00" + "x" * 1000, "code": "c", "state": "s"}
    )
    assert response.error == "access_denied"
    assert response.code == ""
    assert response.error_description.startswith("nox")
    assert len(response.error_description) == 300


def test_neither_code_nor_error_is_an_invalid_response() -> None:
    assert AuthorizationResponse.parse({"state": "s"}).error == "invalid_response"
    assert AuthorizationResponse.parse({"code": ""}).error == "invalid_response"


@pytest.mark.parametrize("own", ["error_code", "errorCode", "error_type", "oauth_error", "oauth_problem", "err"])
def test_a_providers_own_name_for_an_error_counts_where_there_is_no_code(own: str) -> None:
    response = AuthorizationResponse.parse({own: "no\x00t today", "error_message": "We are\r\nclosed"})
    assert (response.error, response.error_description) == ("not today", "We are closed")
    response = AuthorizationResponse.parse({own: "0", "error": "", "code": "c"})
    assert (response.error, response.code) == ("", "c")


@pytest.mark.parametrize(
    ("iss", "issuer", "promised", "accepted"),
    [
        ("https://provider.example", "https://provider.example", True, True),
        ("https://provider.example", "https://provider.example", False, True),
        ("", "https://provider.example", False, True),
        ("", "", True, True),
        # Its issuer is not known: then what has the origin of an endpoint will do.
        ("https://login.provider.example", "", False, True),
        ("https://TOKEN.provider.example/realms/one", "", False, True),
        ("https://other.example", "", False, False),
        ("https://provider.example", "", False, False),
        ("http://login.provider.example", "", False, False),
        ("https://[", "", False, False),
        ("", "https://provider.example", True, False),
        ("https://other.example", "https://provider.example", False, False),
        ("https://provider.example/", "https://provider.example", False, True),
        ("https://provider.example", "https://provider.example/", True, True),
        ("https://login.example/9188/v2.0", "https://login.example/{tenantid}/v2.0", False, True),
        ("https://login.example/9188/evil/v2.0", "https://login.example/{tenantid}/v2.0", False, False),
        ("HTTPS://Provider.example:443", "https://provider.example", False, True),
    ],
)
def test_an_answer_is_taken_only_from_the_server_that_was_asked(
    iss: str, issuer: str, promised: bool, accepted: bool
) -> None:
    response = AuthorizationResponse.parse({"code": "c", "state": "s", "iss": iss})
    server = ServerMetadata(
        issuer=issuer,
        authorization_endpoint="https://login.{domain}/authorize",
        token_endpoint="https://token.{domain}/token",
        authorization_response_iss_parameter_supported=promised,
    )
    quirks = Quirks(values={"domain": "provider.example"})
    if accepted:
        check_issuer(response, server, quirks)
    else:
        with pytest.raises(ConnectFailed) as failed:
            check_issuer(response, server, quirks)
        assert failed.value.error == "issuer_mismatch"


def test_an_error_need_not_say_where_it_is_from_but_must_not_be_from_elsewhere() -> None:
    server = ServerMetadata(issuer="https://provider.example", authorization_response_iss_parameter_supported=True)
    check_issuer(AuthorizationResponse.parse({"error": "access_denied"}), server)
    with pytest.raises(ConnectFailed):
        check_issuer(AuthorizationResponse.parse({"error": "access_denied", "iss": "https://other.example"}), server)
