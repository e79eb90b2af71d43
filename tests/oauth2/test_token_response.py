"""Token responses: what providers send, and what comes out."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergrant.oauth2.token_response import InvalidTokenResponse, TokenResponse


def parse(**members: Any) -> TokenResponse:
    body = json.dumps({"access_token": "at-1", **members}).encode()
    return TokenResponse.parse(body, "application/json")


def test_a_complete_response_is_read() -> None:
    response = parse(token_type="bearer", expires_in=3600, refresh_token="rt-1", scope="read write", id_token="a.b.c")
    assert response.access_token.get_secret_value() == "at-1"
    assert response.token_type == "Bearer"
    assert response.expires_in == 3600
    assert response.refresh_token is not None
    assert response.refresh_token.get_secret_value() == "rt-1"
    assert response.scopes == ("read", "write")
    assert response.id_token is not None
    assert "at-1" not in repr(response)
    assert "rt-1" not in repr(response)


def test_only_the_access_token_is_needed() -> None:
    response = parse()
    assert (response.token_type, response.expires_in, response.refresh_token, response.scopes) == (
        "Bearer",
        None,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (3600, 3600),
        ("3600", 3600),
        (3599.9, 3599),
        ("3599.5", 3599),
        (315360000, 315360000),
        (0, None),
        (-5, None),
        ("-5", None),
        (2**31, None),
        (10**400, None),
        (float("inf"), None),
        (float("nan"), None),
        ("never", None),
        ("", None),
        (True, None),
        (None, None),
        ([3600], None),
    ],
)
def test_a_lifetime_is_seconds_or_unknown(value: object, seconds: int | None) -> None:
    assert parse(expires_in=value).expires_in == seconds


@pytest.mark.parametrize(
    ("value", "scopes"),
    [
        ("a b", ("a", "b")),
        (" a  b a ", ("a", "b")),
        ("a,b", ("a", "b")),
        ("a, b", ("a", "b")),
        ("single", ("single",)),
        (["a", "b", 3], ("a", "b")),
        ("", None),
        ("   ", None),
        ([], None),
        (None, None),
        (7, None),
    ],
)
def test_scopes_are_a_tuple_or_not_answered(value: object, scopes: tuple[str, ...] | None) -> None:
    assert parse(scope=value).scopes == scopes


@pytest.mark.parametrize(
    ("value", "token_type"),
    [
        ("BEARER", "Bearer"),
        ("dpop", "DPoP"),
        ("User Access Token", "Bearer"),
        ("bot", "Bearer"),
        (5, "Bearer"),
    ],
)
def test_an_odd_token_type_is_bearer(value: object, token_type: str) -> None:
    assert parse(token_type=value).token_type == token_type


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", ""])
def test_a_form_encoded_response_is_read(content_type: str) -> None:
    response = TokenResponse.parse(b"access_token=at-1&expires_in=60&scope=a%2Cb&refresh_token=\n", content_type)
    assert response.access_token.get_secret_value() == "at-1"
    assert response.expires_in == 60
    assert response.scopes == ("a", "b")
    assert response.refresh_token is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b"[]",
        b'"text"',
        b'{"access_token":"at',
        b'{"access_token":""}',
        b'{"access_token":null}',
        b'{"access_token":5}',
        b'{"access_token":"a\\r\\nx: y"}',
        b'{"access_token":"\xc3\xa9"}',
        b"<html>access_token=at-1</html>",
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps({"access_token": "x" * (64 * 1024 + 1)}).encode(),
    ],
)
def test_a_body_without_a_usable_access_token_is_refused_and_not_quoted(body: bytes) -> None:
    with pytest.raises(InvalidTokenResponse) as refused:
        TokenResponse.parse(body, "application/json")
    assert "at-1" not in str(refused.value)


def test_an_access_token_of_64_kib_is_taken() -> None:
    assert len(parse(access_token="x" * 64 * 1024).access_token.get_secret_value()) == 64 * 1024


def test_an_unusable_id_token_does_not_cost_the_tokens_beside_it() -> None:
    response = parse(id_token="x" * (64 * 1024 + 1), refresh_token="rt-1")
    assert response.id_token is None
    assert response.refresh_token is not None


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["access_token", "expires_in", "scope", "token_type", "x"]), inner, max_size=5
            )
        ),
        max_leaves=9,
    ).map(lambda value: json.dumps(value).encode())
)
def test_whatever_arrives_is_a_response_or_a_refusal(body: bytes) -> None:
    try:
        response = TokenResponse.parse(body, "application/json")
    except InvalidTokenResponse:
        return
    assert response.access_token.get_secret_value()
