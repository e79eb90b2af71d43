"""Token answers as servers really write them, through connects, refreshes and uploads: nothing good in them is lost."""

import base64
import gzip
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from tests.conftest import Clock
from tests.infra.installation import Installation, came_back
from tests.infra.rows import rows
from tests.infra.scripted import ScriptedProvider, answer, json_answer

JSON = "application/json;charset=UTF-8"
SECRET = "a-client-secret-that-is-long-enough"
ISSUER = "https://provider.example"
KEY = RSAKey.generate_key(2048, {"kid": "k-1"})
OTHER = RSAKey.generate_key(2048, {"kid": "k-2"})


def a_jwt(**claims: Any) -> str:
    parts = (json.dumps(part).encode() for part in ({"alg": "RS256"}, claims))
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), "c2ln"])


@dataclass
class Trip:
    """One user's app at a scripted provider."""

    here: Installation
    provider: ScriptedProvider
    user: str
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def app_id(self) -> str:
        return f"answers-{self.user}"

    def connect(self, first: Any = None) -> dict[str, str]:
        """Make a whole trip; `first` answers the code, and may be a function of the nonce."""
        if not self.provider.requests:
            fields = {"clientSecret": SECRET, "refreshPolicy": "on_demand", **self.fields}
            self.here.backend.create_app(self.provider.registration(self.app_id, **fields))
        browser = self.here.browser()
        query = parse_qs(urlsplit(browser.agree(self.here.backend.connect_url(self.user, appId=self.app_id))).query)
        if first is not None:
            self.provider.routes["/token"] = first(query["nonce"][0]) if callable(first) else first
        params = {"state": query["state"][0], "code": "code-1"}
        back = browser.open(str(httpx2.URL(query["redirect_uri"][0], params=params)))
        return came_back(back)

    def connected(self, first: Any = None) -> None:
        assert self.connect(first)["outboundStatus"] == "connected"

    def fetch(self, **options: Any) -> httpx2.Response:
        body = {"appId": self.app_id, "userId": self.user, "options": options}
        return self.here.backend.post("app/user/token/latest", body)

    def token(self, **options: Any) -> dict[str, Any]:
        found = self.fetch(**options)
        assert found.status_code == 200, found.text
        token: dict[str, Any] = found.json()["token"]
        return token

    def listed(self) -> dict[str, Any]:
        [token] = self.here.backend.get(f"tokens?userId={self.user}").json()["tokens"]
        return dict(token)

    @property
    def refreshes(self) -> list[str]:
        """The refresh tokens that the provider was sent."""
        return [form["refresh_token"] for form in self.provider.forms_at("/token") if "refresh_token" in form]


@pytest.fixture
def trip(here: Installation, scripted: ScriptedProvider, user: str) -> Trip:
    return Trip(here, scripted, user)


# ends


def test_a_token_that_says_by_itself_when_it_ends_is_refreshed_in_time(trip: Trip, clock: Clock) -> None:
    end = int(clock.now.timestamp()) + 600
    first = {"access_token": a_jwt(exp=end), "refresh_token": "rt-1", "token_type": "Bearer"}
    trip.connected(first)
    assert trip.token()["accessTokenExpiry"] == str(end)
    trip.provider.routes["/token"] = {"access_token": "at-2"}
    clock.advance(700)
    assert trip.token()["accessToken"] == "at-2"
    assert trip.refreshes == ["rt-1"]


@pytest.mark.parametrize("end", [{"expires_at": 600}, {"expires_in": 600_000}, {"expires_on": "600"}])
def test_a_moment_in_any_place_is_the_end(trip: Trip, clock: Clock, end: dict[str, Any]) -> None:
    [(name, offset)] = end.items()
    now = clock.now.timestamp()
    moment: Any = int(now * 1000) + offset if offset == 600_000 else int(now) + int(offset)
    trip.connected({"access_token": "at-1", name: str(moment) if isinstance(offset, str) else moment})
    assert abs(int(trip.token()["accessTokenExpiry"]) - int(now) - 600) <= 1
    clock.advance(700)
    assert trip.fetch().status_code == 404


@pytest.mark.parametrize("nothing", [0, "0", -1])
def test_a_lifetime_of_0_beside_a_refresh_token_costs_one_refresh_and_not_one_for_every_fetch(
    trip: Trip, clock: Clock, nothing: Any
) -> None:
    trip.connected({"access_token": "old", "refresh_token": "rt-1", "expires_in": nothing})
    trip.provider.routes["/token"] = {"access_token": "new", "refresh_token": "rt-2", "expires_in": nothing}
    assert [trip.token()["accessToken"] for _ in range(4)] == ["new"] * 4
    assert trip.refreshes == ["rt-1"]
    clock.advance(3600)
    assert trip.token()["accessToken"] == "new"
    assert trip.refreshes == ["rt-1", "rt-2"]


def test_a_refresh_that_says_0_after_a_connect_that_said_nothing_is_used_for_an_hour(trip: Trip, clock: Clock) -> None:
    trip.connected({"access_token": "old", "refresh_token": "rt-1"})
    trip.provider.routes["/token"] = {"access_token": "new", "refresh_token": "rt-2", "expires_in": 0}
    clock.advance(86_400)
    assert [trip.token()["accessToken"] for _ in range(3)] == ["new"] * 3
    assert trip.token()["accessTokenExpiry"] == str(int(clock.now.timestamp()) + 3600)
    assert trip.refreshes == ["rt-1"]


def test_a_lifetime_of_0_without_a_refresh_token_still_means_never(trip: Trip, clock: Clock) -> None:
    trip.connected({"access_token": "old", "expires_in": 0})
    clock.advance(400 * 86_400)
    assert (trip.token()["accessToken"], trip.token()["accessTokenExpiry"]) == ("old", "")


def test_a_token_whose_end_nobody_knows_is_refreshed_daily_and_stays_in_use_when_that_fails(
    trip: Trip, clock: Clock
) -> None:
    trip.connected({"access_token": "old", "refresh_token": "rt-1"})
    clock.advance(23 * 3600)
    assert (trip.token()["accessToken"], trip.refreshes) == ("old", [])
    trip.provider.routes["/token"] = {"access_token": "new"}
    clock.advance(2 * 3600)
    assert [trip.token()["accessToken"] for _ in range(3)] == ["new"] * 3
    assert trip.refreshes == ["rt-1"]
    trip.provider.routes["/token"] = (503, {})
    clock.advance(25 * 3600)
    assert trip.token()["accessToken"] == "new"
    assert trip.refreshes == ["rt-1"] * 2


def test_the_end_of_the_refresh_token_is_shown_and_follows_it(trip: Trip, clock: Clock) -> None:
    now = int(clock.now.timestamp())
    first = {"access_token": "at-1", "refresh_token": "rt-1", "expires_in": 600, "refresh_token_expires_in": "5184000"}
    trip.connected(first)
    assert abs(int(trip.listed()["refreshTokenExpiry"]) - now - 5_184_000) <= 1
    kept = trip.listed()["refreshTokenExpiry"]
    for reply, end in (
        ({"access_token": "at-2"}, kept),
        ({"access_token": "at-3", "x_refresh_token_expires_in": 60}, 60),
        ({"access_token": "at-4", "refresh_token": "rt-4", "refresh_expires_in": 120}, 120),
        ({"access_token": "at-5", "refresh_token": "rt-5"}, ""),
    ):
        trip.provider.routes["/token"] = {"expires_in": 600, **reply}
        clock.advance(700)
        assert trip.token()["accessToken"] == reply["access_token"]
        expected = str(int(clock.now.timestamp()) + end) if isinstance(end, int) else end
        assert trip.listed()["refreshTokenExpiry"] == expected


def test_a_consent_that_goes_on_with_a_refresh_token_goes_on_with_its_end(trip: Trip, clock: Clock) -> None:
    trip.connected({"access_token": "at-1", "refresh_token": "rt-1", "expires_in": 600, "refresh_expires_in": 86_400})
    end = trip.listed()["refreshTokenExpiry"]
    clock.advance(60)
    trip.connected({"access_token": "at-2"})
    assert (trip.listed()["hasRefreshToken"], trip.listed()["refreshTokenExpiry"]) == (True, end)
    assert trip.token()["accessTokenExpiry"] == str(int(clock.now.timestamp()) + 600)


def test_an_upload_that_is_verified_knows_both_ends_and_one_that_is_not_reads_a_jwts(trip: Trip, clock: Clock) -> None:
    trip.here.backend.create_app(trip.provider.registration(trip.app_id))
    end = int(clock.now.timestamp()) + 600
    body = {"appId": trip.app_id, "userId": trip.user, "refreshToken": "rt-0"}
    reply = {"access_token": a_jwt(exp=end), "refresh_token": "rt-1", "refresh_expires_in": 3600, "scope": "s1 a\ud800"}
    trip.provider.routes["/token"] = reply
    done = trip.here.backend.post("app/user/oauthtoken/upload", {**body, "verifyRefresh": True})
    assert done.status_code == 200, done.text
    listed = trip.listed()
    assert (listed["accessTokenExpiry"], listed["scopes"]) == (str(end), ["s1"])
    assert listed["refreshTokenExpiry"] == str(int(clock.now.timestamp()) + 3600)
    other = {**body, "externalIdentifier": "other", "accessToken": a_jwt(exp=end)}
    assert trip.here.backend.post("app/user/oauthtoken/upload", other).status_code == 200
    listed_too = trip.here.backend.get(f"tokens?userId={trip.user}").json()["tokens"]
    assert {token["accessTokenExpiry"] for token in listed_too} == {str(end)}


# bytes

AFTER = b'{"access_token":"at-2","refresh_token":"rt-2","expires_in":3600,"name":"Zo'


@pytest.mark.parametrize(
    "reply",
    [
        answer(200, AFTER + b'\xeb"}', JSON),
        answer(200, AFTER + b'\n\x00e"}', JSON),
        answer(200, AFTER + b'e"}\r\n<!-- proxy -->', JSON),
        answer(200, b"\xef\xbb\xbf" + AFTER + b'e"}', JSON),
        answer(200, (AFTER + b'e"}').decode().encode("utf-16"), JSON),
        answer(200, json.dumps((AFTER + b'e"}').decode()).encode(), JSON),
        answer(200, AFTER + rb'e\ud800","scope":"files a\udfff"}', JSON),
        answer(200, AFTER + b'","id_token":{"a":[1]},"id":' + b"9" * 5000 + b',"scope":3}', JSON),
        *(answer(200, AFTER + b'e"}', JSON, Content_Encoding=name) for name in ("UTF-8", "none", "gzip", "deflate")),
        answer(200, gzip.compress(AFTER + b'e"}', mtime=0)[:-8], JSON, Content_Encoding="gzip"),
    ],
)
def test_what_nobody_needs_does_not_cost_a_rotated_refresh_token(trip: Trip, clock: Clock, reply: bytes) -> None:
    trip.connected({"access_token": "at-1", "refresh_token": "rt-1", "expires_in": 600})
    trip.provider.routes["/token"] = reply
    clock.advance(700)
    token = trip.token(withRefreshToken=True)
    assert (token["accessToken"], token["refreshToken"], token["scopes"]) == ("at-2", "rt-2", ["files"])


def test_it_does_not_cost_a_connect_either(trip: Trip) -> None:
    trip.connected(answer(200, AFTER + rb'\ud800","scope":"s1 a\ud800 b\u0000' + b'\xeb"}', JSON))
    assert (trip.token()["accessToken"], trip.token()["scopes"]) == ("at-2", ["s1"])


def test_a_dead_refresh_token_is_recognised_beside_words_in_an_old_charset(trip: Trip, clock: Clock) -> None:
    trip.connected({"access_token": "at-1", "refresh_token": "rt-1", "expires_in": 600})
    trip.provider.routes["/token"] = answer(
        400, '{"error":"invalid_grant","error_description":"Die Sitzung ist abgelaufen: Zoë"}'.encode("latin-1"), JSON
    )
    clock.advance(700)
    refused = trip.fetch()
    assert refused.status_code == 404
    assert "abgelaufen: Zoë" in trip.listed()["lastRefreshError"]


def test_what_is_worked_out_beside_tokens_cannot_lose_them(
    trip: Trip, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    trip.connected({"access_token": "at-1", "refresh_token": "rt-1", "expires_in": 600})
    trip.provider.routes["/token"] = {"access_token": "at-2", "refresh_token": "rt-2", "scope": "other"}

    def breaks(*_: object, **__: object) -> None:
        raise UnicodeEncodeError("utf-8", "x", 0, 1, "surrogates not allowed")

    for name in ("granted_anew", "allowed_captures", "next_refresh"):
        monkeypatch.setattr(f"evergrant.broker.refresh.answer_columns.{name}", breaks)
    clock.advance(700)
    token = trip.token(withRefreshToken=True)
    assert (token["accessToken"], token["refreshToken"], token["scopes"]) == ("at-2", "rt-2", ["files"])


# who connected


def identified(nonce: str, key: Any = KEY, alg: str = "RS256", kid: str | None = "k-1", **changes: Any) -> Any:
    """Answer with an id_token."""
    claims = {"iss": ISSUER, "aud": "evergrant", "sub": "sub-1", "nonce": nonce, **changes}
    claims = {name: value for name, value in claims.items() if value is not None}
    token = jwt.encode({"alg": alg} | ({"kid": kid} if kid else {}), claims, key, algorithms=[alg])
    return {"access_token": "at-1", "refresh_token": "rt-1", "expires_in": 600, "id_token": token}


@pytest.fixture
def signing_in(trip: Trip) -> Trip:
    trip.provider.routes["/jwks"] = {"keys": [KEY.as_dict(private=False)]}
    trip.fields = {"issuer": ISSUER, "jwksUrl": f"{trip.provider.url}/jwks", "defaultScopes": ["openid"]}
    return trip


def about(clock: Clock, exp: int = 300, iat: int = 0) -> dict[str, int]:
    now = int(clock.now.timestamp())
    return {"iat": now + iat, "exp": now + exp}


@pytest.mark.parametrize("case", ["as it should be", "clocks", "text", "client secret", "several keys"])
def test_whoever_can_be_known_is_known(signing_in: Trip, clock: Clock, case: str) -> None:
    times: dict[str, Any] = about(clock)
    how: dict[str, Any] = {}
    if case == "clocks":
        times = about(clock, exp=600, iat=300)
    elif case == "text":
        times = {name: str(value) for name, value in times.items()}
    elif case == "client secret":
        how = {"key": OctKey.import_key(SECRET), "alg": "HS256", "kid": None}
    elif case == "several keys":
        how = {"kid": None}
        keys = [key.as_dict(private=False) for key in (OTHER, KEY)]
        signing_in.provider.routes["/jwks"] = {"keys": keys}
    signing_in.connected(lambda nonce: identified(nonce, **how, **times))
    assert (signing_in.listed()["tokenSub"], signing_in.listed()["tokenSubProblem"]) == ("sub-1", "")


@pytest.mark.parametrize("with_userinfo", [False, True])
@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("no nonce", "to which trip"),
        ("keys away", "cannot be read"),
        ("keys are garbage", "cannot be read"),
        ("no keys", "no key that it names"),
        ("unknown key", "no key that it names"),
        ("another secret", "not with the client secret"),
        ("half an hour early", "from the future"),
        ("no JWT", "not a signed token"),
        ("encrypted", "encrypted"),
    ],
)
def test_an_id_token_that_proves_nothing_costs_only_the_subject(
    signing_in: Trip, clock: Clock, case: str, why: str, with_userinfo: bool
) -> None:
    routes = signing_in.provider.routes
    if with_userinfo:
        signing_in.fields["userinfoUrl"] = f"{signing_in.provider.url}/userinfo"
        routes["/userinfo"] = {"sub": "sub-2"}
    edits: dict[str, dict[str, Any]] = {
        "no nonce": {"nonce": None},
        "unknown key": {"key": OTHER, "kid": "k-2"},
        "another secret": {"key": OctKey.import_key("a-secret-of-somebody-else-altogether"), "alg": "HS256"},
    }
    replies: dict[str, Any] = {
        "keys away": (503, {}),
        "keys are garbage": answer(200, b"\x00\xff<html>"),
        "no keys": {"keys": []},
    }
    routes["/jwks"] = replies.get(case, routes["/jwks"])
    times = about(clock, exp=3600, iat=1800) if case == "half an hour early" else about(clock)

    def first(nonce: str) -> Any:
        made = identified(**{"nonce": nonce, **times, **edits.get(case, {})})
        return made | {"id_token": {"no JWT": "opaque", "encrypted": "a.b.c.d.e"}.get(case, made["id_token"])}

    signing_in.connected(first)
    assert signing_in.token()["accessToken"] == "at-1"
    listed = signing_in.listed()
    if with_userinfo:
        assert (listed["tokenSub"], listed["tokenSubProblem"]) == ("sub-2", "")
        return
    assert listed["tokenSub"] == ""
    assert why in listed["tokenSubProblem"]
    [event] = [row for row in rows(signing_in.here.settings, "audit_events") if listed["id"] in str(row["data"])]
    assert why in str(event["data"])


@pytest.mark.parametrize(
    ("changes", "fields", "why"),
    [
        ({"nonce": "another"}, {}, "another trip"),
        ({"nonce": None}, {"pkce": False}, "another trip"),
        ({"aud": "somebody-else"}, {}, "another client"),
        ({"iss": "https://other.example"}, {}, "another issuer"),
        ({"key": OTHER}, {}, "signature is wrong"),
        ({"exp": 1}, {}, "expired"),
    ],
)
def test_an_id_token_that_says_something_else_ends_the_trip(
    signing_in: Trip, clock: Clock, changes: dict[str, Any], fields: dict[str, Any], why: str
) -> None:
    signing_in.fields |= fields
    back = signing_in.connect(lambda nonce: identified(**{"nonce": nonce, **about(clock), **changes}))
    assert (back["outboundStatus"], back["err"]) == ("failed", "invalid_id_token")
    assert why in back["errDescription"]
    assert signing_in.fetch().status_code == 404


def test_userinfo_that_fails_is_told_where_the_subject_would_be(signing_in: Trip, clock: Clock) -> None:
    signing_in.fields["userinfoUrl"] = f"{signing_in.provider.url}/userinfo"
    signing_in.provider.routes["/userinfo"] = json_answer(500, {})
    signing_in.connected({"access_token": "at-1"})
    assert "userinfo call answered 500" in signing_in.listed()["tokenSubProblem"]
