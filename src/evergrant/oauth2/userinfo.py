"""Asks the provider who connected (OpenID Connect Core 1.0 section 5.3)."""

from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from evergrant.errors import ConnectFailed, UpstreamUnavailable
from evergrant.oauth2.provider_text import provider_text
from evergrant.oauth2.registration import ServerMetadata
from evergrant.oauth2.token_response import parse_body
from evergrant.oauth2.transport import Http

MAX_SUBJECT_LENGTH = 255
WORDS = ("email", "name")
"""What people know an account by (OpenID Connect Core section 5.1)."""


def words_about(members: Mapping[str, Any]) -> dict[str, str]:
    """Return what an account is known by, as far as claims or a userinfo answer say it."""
    said = {name: members.get(name) for name in WORDS}
    return {
        name: value
        for name, value in said.items()
        if isinstance(value, str) and 0 < len(value) <= MAX_SUBJECT_LENGTH and value.isprintable()
    }


async def fetch_account(http: Http, server: ServerMetadata, access_token: SecretStr) -> tuple[str, dict[str, str]]:
    """Ask the userinfo endpoint who connected, and return the id and the words there.

    `id` and `user_id` do for `sub`.

    Raises:
        ConnectFailed: `invalid_userinfo`: the provider refuses the call or names nobody.
        UpstreamUnavailable: it is away.
    """
    members = await fetch_userinfo(http, server, access_token)
    for name in ("sub", "id", "user_id"):
        value = members.get(name)
        text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
        if text and len(text) <= MAX_SUBJECT_LENGTH and text.isprintable():
            return text, words_about(members)
    raise ConnectFailed("invalid_userinfo", "The provider's userinfo call does not say who the user is.")


async def fetch_userinfo(http: Http, server: ServerMetadata, access_token: SecretStr) -> Mapping[str, Any]:
    """Return what the userinfo endpoint says about whoever connected (OpenID Connect Core 5.3).

    Raises:
        ConnectFailed: `invalid_userinfo`: the provider refuses the call.
        UpstreamUnavailable: it is away.
    """
    token = access_token.get_secret_value()
    answer = await http.get_json(server.userinfo_endpoint, {"authorization": f"Bearer {token}"})
    if answer.status == 429 or not (200 <= answer.status < 300 or 400 <= answer.status < 500):
        raise UpstreamUnavailable(f"The provider's userinfo call answered {answer.status}.")
    members = parse_body(answer.body, answer.headers.get("content-type", ""))
    if answer.status >= 400:
        said = provider_text((members or {}).get("error_description"), secrets=(token,))
        raise ConnectFailed(
            "invalid_userinfo",
            f"The provider's userinfo call answered {answer.status}{f': {said}' if said else ''}.",
        )
    if members is None:
        raise UpstreamUnavailable("The provider's userinfo call answered something that is not JSON.")
    return members
