"""Every provider of the app library, from the consent to the revocation, at a provider that takes nothing else."""

import time
from collections.abc import Callable, Iterable, Iterator

import pytest

from tests.conformance.conforming import Connection, World, world
from tests.infra.conformance import PERSON
from tests.infra.databases import fresh_postgres_database
from tests.infra.entries import Entry, fill, oauth_entries
from tests.infra.postgres import PostgresServer

ENTRIES = oauth_entries()
ON_POSTGRESQL = ["apple", "exact-online", "facebook", "quickbooks", "salesforce", "slack-user", "zoho"]
"""One of each kind of quirk; what a provider wants does not depend on the database."""


@pytest.fixture(scope="module")
def on_postgresql(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Some of them in an installation with PostgreSQL."""
    entries = {name: ENTRIES[name] for name in ON_POSTGRESQL}
    with fresh_postgres_database(postgres_server) as url, world(entries, url, tmp_path_factory.mktemp("some")) as made:
        yield made


@pytest.mark.parametrize("entry_id", ENTRIES)
def test_an_entry_works_from_the_consent_to_the_revocation(everybody: World, entry_id: str) -> None:
    whole_life(everybody, entry_id)


@pytest.mark.parametrize("entry_id", ON_POSTGRESQL)
def test_an_entry_works_on_postgresql(on_postgresql: World, entry_id: str) -> None:
    whole_life(on_postgresql, entry_id)


def once(of_entry: Callable[[Entry], Iterable[object]]) -> list[tuple[str, int]]:
    """Return each thing that an entry has by its place, once where entries of a family share it."""
    found = {
        (entry["token_endpoint"], str(what)): (key, number)
        for key, entry in reversed(ENTRIES.items())
        for number, what in enumerate(of_entry(entry))
    }
    return sorted(found.values())


@pytest.mark.parametrize(("entry_id", "number"), once(lambda entry: entry.get("dead_refresh_token", [])))
def test_an_entrys_own_words_for_a_dead_refresh_token_end_the_connection(
    everybody: World, entry_id: str, number: int
) -> None:
    connection = everybody.connection(entry_id)
    connection.connected()
    connection.provider.dead, connection.provider.dead_answer = True, number
    assert connection.is_dead()
    assert (connection.provider.complaints, connection.provider.refusals) == ([], ["a dead refresh token"])


@pytest.mark.parametrize(
    "entry_id",
    [key for key, _ in once(lambda e: [e["issuer"]] if "{tenantid}" not in e.get("issuer", "{tenantid}") else [])],
)
def test_an_answer_of_the_entrys_issuer_is_taken_and_another_ones_is_not(everybody: World, entry_id: str) -> None:
    connection = everybody.connection(entry_id)
    issuer = fill(connection.provider.entry["issuer"], connection.provider.values)
    connection.provider.callback_params = {"iss": f"{issuer}/other"}
    back = connection.connect()
    assert (back["outboundStatus"], connection.provider.calls("token")) == ("failed", [])
    connection.provider.callback_params = {"iss": issuer}
    assert connection.connect_again()["outboundStatus"] == "connected"


def whole_life(running: World, entry_id: str) -> None:
    """Connect, fetch, force a refresh, let the token end, revoke: and every request is what the provider wants."""
    connection = running.connection(entry_id)
    provider = connection.provider
    known = [fill(scope, provider.values) for scope in provider.entry.get("scopes", {})]
    described = [scope for scope in known if scope not in provider.scopes]
    if len(provider.scopes) == 1 and described:  # two, so that what stands between them counts
        provider.scopes = [*provider.scopes, described[0]]
        back = connection.connect(overrides={"name": entry_id, "defaultScopes": provider.scopes})
    else:
        back = connection.connect()
    assert provider.complaints == []
    assert back["outboundStatus"] == "connected", back
    fetched_is_what_was_issued(connection)

    if "refresh_margin" in provider.entry:  # it refuses earlier, so it must not be asked earlier
        assert connection.fetch(forceRefresh=True).status_code == 503
        connection.expire()
    calls = len(provider.seen)
    connection.token(forceRefresh=True)
    renewable = provider.has_refresh_tokens or bool(provider.trades)
    assert (len(provider.seen) > calls) == renewable
    fetched_is_what_was_issued(connection)
    if renewable:
        connection.expire()  # by the refresh token that the refresh has brought
        fetched_is_what_was_issued(connection)

    revocable = not provider.entry.keys().isdisjoint({"revocation", "revocation_endpoint"})
    assert connection.revoke() == ("revoked" if revocable else "unsupported")
    assert len(provider.revoked) == revocable
    assert connection.fetch().status_code == 404
    assert (provider.complaints, provider.refusals) == ([], [])


def fetched_is_what_was_issued(connection: Connection) -> None:
    """A fetch answers with what the provider issued last, and with when it ends."""
    token, provider = connection.token(), connection.provider
    assert (provider.complaints, provider.refusals) == ([], [])
    assert token["accessToken"] == provider.access_token
    renewed_by = provider.access_token if provider.trades else provider.refresh_token
    assert token.get("refreshToken", "") == renewed_by
    assert token["scopes"] == provider.scopes
    assert token.get("details", {}) == provider.of_source("user", "callback", "token", "context")
    if provider.lifetime is None:
        assert token["accessTokenExpiry"] == ""
    else:
        assert abs(int(token["accessTokenExpiry"]) - time.time() - provider.lifetime) < 120
    known = provider.signs_in or "userinfo_endpoint" in provider.entry
    assert token.get("tokenSub", "") == (PERSON if known else "")
