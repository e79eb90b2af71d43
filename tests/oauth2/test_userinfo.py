"""Who connected, by the userinfo call: what it may answer, and when it is a matter of time."""

from typing import Any

import pytest
from pydantic import SecretStr

from evergrant.errors import ConnectFailed, UpstreamUnavailable
from evergrant.oauth2.registration import ServerMetadata
from evergrant.oauth2.transport import Http
from evergrant.oauth2.userinfo import fetch_account
from tests.infra.scripted import ScriptedProvider, answer, json_answer


@pytest.mark.parametrize(
    ("members", "subject"),
    [
        ({"sub": "u-1", "id": "x"}, "u-1"),
        ({"id": 583231}, "583231"),
        ({"user_id": "u-2"}, "u-2"),
        ({"sub": "", "id": "u-3"}, "u-3"),
    ],
)
async def test_userinfo_names_the_subject(
    http: Http, server: ServerMetadata, provider: ScriptedProvider, members: dict[str, Any], subject: str
) -> None:
    provider.routes["/userinfo"] = json_answer(200, members)
    assert await fetch_account(http, server, SecretStr("at-1")) == (subject, {})
    assert provider.requests[0].headers["authorization"] == "Bearer at-1"


async def test_userinfo_says_what_the_account_is_known_by(
    http: Http, server: ServerMetadata, provider: ScriptedProvider
) -> None:
    said = {"sub": "u-1", "email": "ada@example.com", "name": "x" * 256}
    provider.routes["/userinfo"] = json_answer(200, said)
    assert await fetch_account(http, server, SecretStr("at-1")) == ("u-1", {"email": "ada@example.com"})


@pytest.mark.parametrize(
    "reply",
    [
        json_answer(401, {"error": "invalid_token", "error_description": "at-1 is bad"}),
        answer(403, b"<html>"),
        json_answer(200, {"name": "Ann"}),
        json_answer(200, {"id": True, "sub": "x" * 300}),
    ],
)
async def test_userinfo_that_names_nobody_fails_the_trip(
    http: Http, server: ServerMetadata, provider: ScriptedProvider, reply: bytes
) -> None:
    provider.routes["/userinfo"] = reply
    with pytest.raises(ConnectFailed) as failed:
        await fetch_account(http, server, SecretStr("at-1"))
    assert failed.value.error == "invalid_userinfo"
    assert "at-1" not in failed.value.message


@pytest.mark.parametrize(
    "reply", [answer(500), answer(429), answer(302, Location="/"), answer(200, b"<html>", "text/html")]
)
async def test_userinfo_that_is_away_is_a_matter_of_time(
    http: Http, server: ServerMetadata, provider: ScriptedProvider, reply: bytes
) -> None:
    provider.routes["/userinfo"] = reply
    with pytest.raises(UpstreamUnavailable):
        await fetch_account(http, server, SecretStr("at-1"))
