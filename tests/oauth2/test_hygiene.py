"""What of a call goes on, what of an answer comes back, and which paths are none."""

import base64

import pytest

from evergrant.errors import InvalidValue
from evergrant.oauth2.hygiene import forwarded, override_problem, path_problem, readings, returned
from evergrant.oauth2.placement import found_key, with_parameters

KEY = "evs_P2abc_A1b2C3d4E5f6G7h8I9j0K1_Zy9Xw8Vu7Ts6Rq5Po4Nm3Lk2Ji1Hg0FedCbA98765432jnAl4"
"""Always the same: it is part of the names of tests, which every worker must call alike."""
STAYS = """
    Authorization Connection Keep-Alive Proxy-Connection TE Trailer Transfer-Encoding Upgrade X-Named Host
    Content-Length Cookie Proxy-Authorization Proxy-X Forwarded X-Forwarded-For X-Real-IP Via Expect Origin Referer
    Sec-Fetch-Mode traceparent tracestate baggage Evergrant-User x-descope-x X_Api_Key X-API-KEY x-api-key
"""
DOES_NOT_RETURN = """
    Connection Keep-Alive TE Trailer Transfer-Encoding Upgrade X-Named Set-Cookie WWW-Authenticate Proxy-Authenticate
    Authentication-Info Access-Control-Allow-Origin Alt-Svc Clear-Site-Data Refresh Strict-Transport-Security
    Service-Worker-Allowed X-Accel-Redirect X-Sendfile Evergrant-Source Cache-Control Content-Security-Policy
"""


def _headers(names: str) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), b"x-named" if name == "Connection" else b"v") for name in names.split()]


def test_only_what_is_the_apis_business_goes_on_and_comes_back() -> None:
    goes_on = [(b"Accept", b"a"), (b"accept", b"b"), (b"X-Other", "\u00e9".encode()), (b"x-key", KEY.encode())]
    assert forwarded([*goes_on, *_headers(STAYS)], credential_headers=["X-Api-Key"]) == [
        (b"accept", b"a"),
        (b"accept", b"b"),
        (b"x-other", "\u00e9".encode()),
    ]
    came = returned([(b"ETag", b"e"), *_headers(DOES_NOT_RETURN), (b"Content-Length", b"3")])
    assert came[:2] == [(b"etag", b"e"), (b"content-length", b"3")]
    assert dict(came[2:]) == {
        b"cache-control": b"no-store",
        b"content-security-policy": b"sandbox; default-src 'none'",
        b"x-content-type-options": b"nosniff",
    }


@pytest.mark.parametrize(
    "header", [(b"a b", b"v"), (b"", b"v"), (b"a:", b"v"), (b"a", b"v\r\nb: c"), (b"a", b"\0"), (b"a", b"\xff")]
)
def test_a_header_that_is_none_is_refused(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(InvalidValue):
        forwarded([header])


@pytest.mark.parametrize(
    ("path", "words"),
    [
        *(
            (path, "segment")
            for path in ("/a/../b", "/a/%2e%2E/b", "/a/%252e%252e", "/a/..;x=1/b", "/.", "/a%2F..%2Fb")
        ),
        *((path, "two slashes") for path in ("//evil.example/", "/%2Fevil.example/")),
        *((path, "backslash") for path in ("/a%5Cb", "/a%255c..")),
        *((path, "control") for path in ("/a%00", "/a%0d%0ab", "/a%2500")),
        *((path, "percent sign") for path in ("/a b", "/a\u00e9", "a", "", "/a?b", "/a#b", "/a\\b", "/a\r\n")),
    ],
)
def test_a_path_that_can_be_taken_for_another_is_refused(path: str, words: str) -> None:
    assert words in path_problem(path)


def test_other_paths_are_good_and_have_all_their_readings() -> None:
    for path in ("/", "/v1/a", "/...", "/.well-known/x", "/a@b:c;d,e=1!$&'()*+[x]~_-", "/a%20b", "/caf%C3%A9", "/a%zz"):
        assert path_problem(path) == ""
    assert readings("/v1/a") == ("/v1/a",)
    assert set(readings("/v1/%61dmin%2Fx")) == {"/v1/%61dmin%2Fx", "/v1/%61dmin/x", "/v1/admin/x"}
    assert {"/%61", "/a"} < set(readings("/%2561"))
    assert "/v1/admin/x" in readings("/v1//admin;a=b/x")


@pytest.mark.parametrize(
    "query", ["_method=PUT", "a=1&%5Fmethod=PUT", "_METHOD[]=x", ".method=x", "a;_method=x", "+_method=x", "_method"]
)
def test_another_method_is_not_smuggled_in(query: str) -> None:
    assert override_problem([], query)
    for name in (b"X-HTTP-Method-Override", b"x-http-method", b"X-Method-Override", b"X_HTTP_Method"):
        assert override_problem([(name, b"PUT")], "")
    assert override_problem([(b"x-method", b"a")], "amethod=1&x=_method") == ""


@pytest.mark.parametrize(
    "value",
    [
        f"Bearer {KEY}",
        f"token {KEY}",
        f'Token token="{KEY}"',
        KEY,
        f"Klaviyo-API-Key {KEY}",
        "Basic " + base64.b64encode(f"{KEY}:".encode()).decode(),
        "basic " + base64.b64encode(f"api:{KEY}".encode()).decode(),
    ],
)
def test_a_session_key_is_found_where_a_providers_sdk_puts_its_credential(value: str) -> None:
    assert found_key([(b"accept", b"x"), (b"Authorization", value.encode())], "") == KEY
    assert found_key([(b"X-Api-Key", value.encode())], "") == KEY
    assert found_key([(b"X-Own", value.encode())], "", header_names=["X-Own"]) == KEY
    assert found_key([(b"X-Other", value.encode())], f"key={KEY}") is None
    assert found_key([], f"a=b&api%5Fkey={KEY}", parameter_names=["api_key"]) == KEY


def test_a_key_that_is_misspelt_is_not_found() -> None:
    assert found_key([(b"Authorization", f"Bearer {KEY[:-1]}_".encode())], "") is None


def test_a_credential_in_the_query_takes_the_place_of_whatever_stands_there() -> None:
    query = "q=%zz&Api_Key=theirs&api%5fkey=theirs"
    assert with_parameters(query, {"api_key": "a b&c"}) == "q=%zz&api_key=a%20b%26c"
    assert with_parameters(query, {}) == query
