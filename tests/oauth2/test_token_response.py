"""Token responses: what providers send, and what comes out."""

import base64
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergrant.oauth2.quirks import Quirks, ResponseShape
from evergrant.oauth2.token_response import InvalidTokenResponse, TokenResponse, parse_body
from tests.conftest import Clock


def parse(**members: Any) -> TokenResponse:
    body = json.dumps({"access_token": "at-1", **members}).encode()
    return TokenResponse.parse(body, "application/json")


def a_jwt(**claims: Any) -> str:
    """Return something that has the form of a signed JWT; nobody verifies it."""
    parts = (json.dumps(part).encode() for part in ({"alg": "RS256"}, claims))
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), "c2ln"])


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
        ("3600s", 3600),
        ("90 minutes", 5400),
        ("1 hour", 3600),
        ("1h30m", 5400),
        ("PT1H", 3600),
        ("P1DT2H", 93_600),
        ("5 parsecs", None),
        ("PT", None),
        ("never", None),
        ("", None),
        (True, None),
        (None, None),
        ([3600], None),
    ],
)
def test_a_lifetime_is_seconds_or_unknown(value: object, seconds: int | None) -> None:
    assert parse(expires_in=value).expires_in == seconds


@pytest.mark.parametrize("value", [0, "0", -1, "-3600", 0.0])
def test_a_lifetime_of_nothing_is_an_end_only_where_there_is_a_refresh_token(value: object) -> None:
    assert parse(expires_in=value, refresh_token="rt-1").expires_in == 0
    assert parse(expires_in=value).expires_in is None
    never = Quirks(never_ends=True)
    body = json.dumps({"access_token": "at-1", "refresh_token": "rt-1", "expires_in": value}).encode()
    assert TokenResponse.parse(body, "application/json", never).expires_in is None


@pytest.mark.parametrize(
    "name",
    [
        "expires_in",
        "expires_at",
        "expiresAt",
        "expires_on",
        "expires",
        ".expires",
        "expiry",
        "expiration",
        "exp",
        "access_token_expires_in",
        "access_token_expires_at",
        "access_token_expiration",
    ],
)
def test_an_end_counts_under_each_name_and_in_each_form(clock: Clock, name: str) -> None:
    end = clock.now.replace(microsecond=0) + timedelta(seconds=600)
    epoch = int(end.timestamp())
    forms = (600, "600", epoch, str(epoch), float(epoch), epoch * 1000, str(epoch * 1000), end.isoformat())
    zulu, http = end.strftime("%Y-%m-%dT%H:%M:%SZ"), format_datetime(end, usegmt=True)
    for form in (*forms, zulu, end.replace(tzinfo=None).isoformat(" "), http):
        left = parse(**{name: form}).expires_in
        assert left is not None, form
        assert 598 <= left <= 600, form


def test_a_moment_that_has_passed_is_never_the_absence_of_an_end(clock: Clock) -> None:
    past = int(clock.now.timestamp()) - 7200
    for members in ({"expires_in": past}, {"expires_at": past}, {"expires": past * 1000}):
        assert parse(refresh_token="rt-1", **members).expires_in == 0
        assert parse(**members).expires_in == 1
    at_last = parse(refresh_token="rt-1", expires_at=past, expires_in=60)
    assert at_last.expires_in == 60


@pytest.mark.parametrize("forever", [50 * 365 * 86_400, 100 * 365 * 86_400, 2**31 - 1, 99_999_999_999, 10**15])
def test_what_is_too_long_for_a_lifetime_and_no_moment_near_now_is_no_end(clock: Clock, forever: int) -> None:
    clock.now = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
    assert parse(expires_in=forever, refresh_token="rt-1").expires_in is None


def test_a_jwt_says_by_itself_when_it_ends(clock: Clock) -> None:
    now = int(clock.now.timestamp())
    for exp in (now + 300, str(now + 300), now + 300.5):
        left = parse(access_token=a_jwt(exp=exp)).expires_in
        assert left is not None
        assert 298 <= left <= 300
    assert parse(access_token=a_jwt(exp=now - 5), refresh_token="rt-1").expires_in == 0
    assert parse(access_token=a_jwt(sub="x")).expires_in is None
    for not_a_jwt in ("ey.ey.ey", "eyJ.%.x", f"{a_jwt(exp=now + 300)}.x", "a.b.c", a_jwt(exp="soon"), a_jwt(exp=True)):
        assert parse(access_token=not_a_jwt).expires_in is None


def test_of_a_lifetime_and_a_jwts_own_end_the_earlier_counts(clock: Clock) -> None:
    now = int(clock.now.timestamp())
    early = parse(access_token=a_jwt(exp=now + 300), expires_in=3600).expires_in
    assert early is not None
    assert early <= 300
    assert parse(access_token=a_jwt(exp=now + 7200), expires_in=3600).expires_in == 3600
    assert parse(access_token=a_jwt(exp=now - 7200), expires_in=3600).expires_in == 3600  # a clock is wrong
    # our clock is an hour behind theirs
    assert parse(access_token=a_jwt(iat=now + 3600, exp=now + 4200)).expires_in == 600


def test_what_the_catalogue_entry_names_counts_before_all_other_names() -> None:
    quirks = Quirks(response=ResponseShape(expires_in=("/data/minutes",), expires_unit="min"))
    members = {"access_token": "at-1", "data": {"minutes": 2}, "expires_in": 50, "expires_at": 70}
    assert TokenResponse.parse(json.dumps(members).encode(), "", quirks).expires_in == 120
    del members["data"]
    assert TokenResponse.parse(json.dumps(members).encode(), "", quirks).expires_in == 50


@pytest.mark.parametrize(
    "name",
    [
        "refresh_token_expires_in",
        "refresh_expires_in",
        "x_refresh_token_expires_in",
        "refreshTokenExpiresIn",
        "refresh_token_expires_at",
        "refresh_token_expiration",
        "refresh_token_expiry",
    ],
)
def test_a_refresh_token_has_an_end_of_its_own(clock: Clock, name: str) -> None:
    end = clock.now + timedelta(days=60)
    epoch = int(end.timestamp())
    for form in (60 * 86_400, str(60 * 86_400), epoch, epoch * 1000, end.isoformat()):
        left = parse(refresh_token="rt-1", expires_in=60, **{name: form}).refresh_token_expires_in
        assert left is not None, form
        assert 60 * 86_400 - 2 <= left <= 60 * 86_400, form
    for none in (0, "0", -1, None, "", "never", True, [5], 10**12, epoch - 90 * 86_400):
        answer = parse(refresh_token="rt-1", expires_in=60, **{name: none})
        assert (answer.refresh_token_expires_in, answer.expires_in) == (None, 60), none


def test_a_refresh_token_that_is_a_jwt_says_its_end_and_an_envelope_keeps_it_beside_the_token(clock: Clock) -> None:
    rt = a_jwt(exp=int(clock.now.timestamp()) + 1800)
    left = parse(refresh_token=rt).refresh_token_expires_in
    assert left is not None
    assert 1798 <= left <= 1800
    shape = ResponseShape(access_token=("/data/access_token",), refresh_token=("/data/refresh_token",))
    body = {"data": {"access_token": "at-1", "refresh_token": "rt-1", "refresh_expires_in": 90, "expires_in": 60}}
    answer = TokenResponse.parse(json.dumps(body).encode(), "", Quirks(response=shape))
    assert (answer.expires_in, answer.refresh_token_expires_in) == (60, 90)


@pytest.mark.parametrize(
    ("value", "scopes"),
    [
        ("a b", ("a", "b")),
        (" a  b a ", ("a", "b")),
        ("a,b", ("a", "b")),
        ("a, b", ("a", "b")),
        ("single", ("single",)),
        (["a", "b", 3], ("a", "b")),
        ("s1 a\ud800", ("s1",)),
        ('s1 a\x00 b\\ "c" d\u00e9', ("s1",)),
        (["s1", "two words", "a\udfff"], ("s1",)),
        ("\ud800", None),
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
        b'"{"',
        b'"{\\"access_token\\":5}"',
        b'{"access_token":"a\\u0000"}',
        b'{"access_token":"a\\ud800"}',
        b'{"access_token":"a\nb"}',
        b'[{"access_token":"at-1"}]',
        b"[" * 100_000,
        json.dumps({"access_token": "x" * (64 * 1024 + 1)}).encode(),
    ],
)
def test_a_body_without_a_usable_access_token_is_refused_and_not_quoted(body: bytes) -> None:
    with pytest.raises(InvalidTokenResponse) as refused:
        TokenResponse.parse(body, "application/json")
    assert "at-1" not in str(refused.value)


WHOLE = '{"access_token":"at-1","refresh_token":"rt-1","expires_in":60,"name":"Zoë 語"}'


@pytest.mark.parametrize(
    "body",
    [
        WHOLE.encode(),
        WHOLE.encode("utf-8-sig"),
        WHOLE.encode("utf-16"),
        WHOLE.encode("utf-16-le"),
        WHOLE.encode("utf-32"),
        WHOLE.replace("語", "").encode("latin-1"),
        WHOLE.encode("gb18030"),
        WHOLE.encode()[:-3] + b"\xe8" + b'"}',
        WHOLE.replace("Zoë", "Zo\n\t\x00\x1f").encode(),
        WHOLE.replace("Zoë", r"Zo\ud800").encode(),
        WHOLE.encode() + b"\r\n\r\n0\r\n",
        WHOLE.encode() + b"<!-- served by a proxy -->",
        WHOLE.encode() + b"\x00\x00",
        b"\r\n " + WHOLE.encode(),
        json.dumps(WHOLE).encode(),
        json.dumps(WHOLE, ensure_ascii=False).encode(),
        WHOLE.replace('"name"', '"id":' + "9" * 5000 + ',"name"').encode(),
        WHOLE.replace('"name"', '"id":[{"a":null}],"id_token":{"b":1},"scope":{"c":2},"token_type":[],"name"').encode(),
        WHOLE.replace('"name"', '"id_token":"\xe9.b.c","scope":7,"name"').encode(),
        WHOLE.replace('"name"', '"user":1,"user":2,"name"').encode(),
    ],
)
@pytest.mark.parametrize(
    "content_type", ["application/json;charset=UTF-8", "text/html; charset=iso-8859-1", 'x; charset="Shift_JIS"', ""]
)
def test_what_nobody_needs_does_not_spoil_the_tokens_beside_it(body: bytes, content_type: str) -> None:
    response = TokenResponse.parse(body, content_type)
    assert response.access_token.get_secret_value() == "at-1"
    assert response.refresh_token is not None
    assert (response.expires_in, response.id_token, response.scopes) == (60, None, None)


def test_old_charsets_are_read_as_they_say_and_others_are_not_asked() -> None:
    japanese = {"error_description": "ソート", "error": "invalid_grant"}  # the first has a backslash in its second byte
    body = json.dumps(japanese, ensure_ascii=False).encode("shift_jis")
    assert parse_body(body, "application/json; charset=Shift_JIS") == japanese
    for charset in ("punycode", "idna", "unicode_escape", "cp0", "iso-8859-99", "zip"):
        members = parse_body(b'{"error":"invalid_grant","error_description":"Sitzung \xfcber"}', f"x;charset={charset}")
        assert members == {"error": "invalid_grant", "error_description": "Sitzung über"}


def test_no_text_of_an_answer_has_what_databases_and_encodings_refuse() -> None:
    odd = {"a\x00": ["b\ud800", {"c": "d\x00"}], "e": "\ud83d\ude00 ok"}
    replacement = {"a\ufffd": ["b\ufffd", {"c": "d\ufffd"}], "e": "\U0001f600 ok"}
    assert parse_body(json.dumps(odd).encode(), "application/json") == replacement
    assert parse_body(b"access_token=a&x=b%00", "") == {"access_token": "a", "x": "b\ufffd"}


def test_an_access_token_of_64_kib_is_taken() -> None:
    assert len(parse(access_token="x" * 64 * 1024).access_token.get_secret_value()) == 64 * 1024


@pytest.mark.parametrize("depth", [100, 450, 900])
def test_what_is_nested_deeply_does_not_cost_the_tokens_beside_it(depth: int) -> None:
    nested = '{"a":' * depth + "[]" + "}" * depth
    body = f'{{"access_token": "at-1", "more": {nested}, "refresh_token": "rt-1"}}'
    response = TokenResponse.parse(body.encode(), "application/json")
    assert response.refresh_token is not None
    assert response.refresh_token.get_secret_value() == "rt-1"


@pytest.mark.parametrize("odd", ["two\nlines", "x" * (64 * 1024 + 1), 7], ids=["two lines", "too long", "a number"])
def test_an_unusable_refresh_token_does_not_cost_the_access_token(odd: object) -> None:
    response = parse(refresh_token=odd)
    assert response.refresh_token is None


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
