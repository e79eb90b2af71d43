"""Agent sessions below HTTP: several processes on one database, and nobody else's connections, ever."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from pydantic import SecretStr

from evergrant import clock
from evergrant.broker.access.agent_sessions import count_call, require_still_good
from evergrant.broker.access.authentication import authenticate
from evergrant.broker.access.session_list import (
    KEPT,
    SessionFilter,
    clear_agent_sessions,
    list_agent_sessions,
    revoke_agent_sessions,
)
from evergrant.broker.access.session_minting import MintedSession, SessionRequest, mint_session
from evergrant.broker.apps.apps import create_app
from evergrant.broker.apps.definition import AppDefinition
from evergrant.broker.connections.upload import TokenUpload
from evergrant.broker.connections.upload_one import upload_tokens
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.runtime.agent_limits import SessionApp
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.broker.runtime.principal import ALL_PERMISSIONS, Principal
from evergrant.broker.tokens.fetch import FetchRequest, fetch_token
from evergrant.crypto.opaque import new_session_key
from evergrant.errors import AuthenticationFailed, CallsUsedUp, PermissionDenied
from evergrant.settings import Settings
from tests.infra.installation import new_project

ACCOUNTS: tuple[str | None, ...] = (None, "", "work")
ADDRESS = "192.0.2.7"
OWNERS = (
    ResourceOwner("alice"),
    ResourceOwner("alice", "acme"),
    ResourceOwner("", "acme"),
    ResourceOwner("bob"),
)


async def make_app(broker: Broker, project: str, app_id: str = "mail") -> None:
    definition = AppDefinition(id=app_id, name=app_id, client_id="us", token_url="https://p.example.com/token")
    await create_app(broker, project, definition, now=clock.now())


async def minted(broker: Broker, project: str, owner: ResourceOwner = OWNERS[0], **fields: Any) -> MintedSession:
    app = SessionApp(app_id="mail", external_identifier=fields.pop("external_identifier", None), access="write")
    wanted = SessionRequest(owner=owner, apps=[app], agent_id="helper", **fields)
    return await mint_session(broker, project, wanted, maker=None, now=clock.now())


async def recognised(broker: Broker, key: str) -> Principal:
    return await authenticate(broker, f"Bearer {key}", client_address=ADDRESS, now=clock.now())


def test_a_revoked_session_is_over_here_at_once_and_elsewhere_within_a_second(settings: Settings) -> None:
    project = new_project(settings).project_id

    async def run() -> None:
        async with AsyncExitStack() as stack:
            here = await stack.enter_async_context(open_broker(settings))
            elsewhere = await stack.enter_async_context(open_broker(settings))
            await make_app(here, project)
            made = await minted(here, project)
            principal = await recognised(here, made.key)
            await recognised(elsewhere, made.key)
            which = SessionFilter(session_id=made.row.id)
            assert await revoke_agent_sessions(here, project, which, principal=None, now=clock.now()) == 1
            with pytest.raises(AuthenticationFailed):
                await recognised(here, made.key)
            with pytest.raises(AuthenticationFailed):
                await require_still_good(here, principal, now=clock.now())
            await asyncio.sleep(1.05)  # for so long it may remember it
            with pytest.raises(AuthenticationFailed):
                await require_still_good(elsewhere, principal, now=clock.now())
            with pytest.raises(AuthenticationFailed):
                await recognised(elsewhere, made.key)

    asyncio.run(run())


def test_whoever_presents_a_wrong_key_at_the_same_time_spoils_it_for_nobody(settings: Settings) -> None:
    project = new_project(settings).project_id

    async def run() -> None:
        async with open_broker(settings) as broker:
            await make_app(broker, project)
            made = await minted(broker, project)
            wrong = new_session_key(project, made.row.id)
            keys = [wrong, made.key] * 10
            found = await asyncio.gather(*(recognised(broker, key) for key in keys), return_exceptions=True)
            assert [type(one) for one in found] == [AuthenticationFailed, Principal] * 10

    asyncio.run(run())


def test_a_session_makes_exactly_as_many_calls_as_it_may_over_three_processes(settings: Settings) -> None:
    project = new_project(settings).project_id

    async def one(broker: Broker, principal: Principal) -> bool:
        try:
            await count_call(broker, principal)
        except CallsUsedUp:
            return False
        return True

    async def run() -> None:
        async with AsyncExitStack() as stack:
            brokers = [await stack.enter_async_context(open_broker(settings)) for _ in range(3)]
            await make_app(brokers[0], project)
            made = await minted(brokers[0], project, max_calls=10)
            principals = [await recognised(broker, made.key) for broker in brokers]
            tries = [one(*pair) for pair in zip(brokers, principals, strict=True) for _ in range(6)]
            assert sum(await asyncio.gather(*tries)) == 10
            rows, _ = await list_agent_sessions(
                brokers[0], project, SessionFilter(), reader=None, limit=9, now=clock.now()
            )
            assert [row.calls for row in rows] == [10]
            unlimited = await minted(brokers[0], project)
            await count_call(brokers[0], await recognised(brokers[0], unlimited.key))

    asyncio.run(run())


def test_no_session_reaches_a_connection_of_another_owner_app_account_or_project(settings: Settings) -> None:
    """Every session of two projects tries every connection that there is in both, by name."""
    projects = [new_project(settings).project_id for _ in range(2)]
    grants = list(product(projects, ("mail", "files"), OWNERS, ("", "work")))

    async def run() -> None:
        async with open_broker(settings) as broker:
            for project, app_id in product(projects, ("mail", "files")):
                await make_app(broker, project, app_id)
            for project, app_id, owner, its in grants:
                upload = TokenUpload(
                    app_id=app_id,
                    owner=owner,
                    access_token=SecretStr(_token(project, app_id, owner, its)),
                    external_identifier=its,
                )
                maker = Principal(project, "", ALL_PERMISSIONS, frozenset(), (), None)
                await upload_tokens(broker, maker, upload, verify_refresh=False, now=clock.now())
            handed_out = 0
            for project, owner, account in product(projects, OWNERS, ACCOUNTS):
                made = await minted(broker, project, owner, fetch=True, external_identifier=account)
                principal = await recognised(broker, made.key)
                for app_id, wanted, asked in product(("mail", "files"), OWNERS, ("", "work")):
                    request = FetchRequest(app_id=app_id, owner=wanted, external_identifier=asked)
                    try:
                        token = await fetch_token(broker, principal, request, now=clock.now())
                    except PermissionDenied:
                        continue
                    handed_out += 1
                    answered = asked if account is None else account
                    assert token.access_token.get_secret_value() == _token(project, "mail", owner, answered)
            # with any account both, with one its own: by name, and the usual one also without
            assert handed_out == len(projects) * len(OWNERS) * (2 + 1 + 2)

    asyncio.run(run())


def _token(project: str, app_id: str, owner: ResourceOwner, account: str) -> str:
    return f"{project}.{app_id}.{owner.user_id}.{owner.tenant_id}.{account}"


def test_a_session_is_kept_for_a_month_after_its_end(settings: Settings) -> None:
    project = new_project(settings).project_id

    async def run() -> None:
        async with open_broker(settings) as broker:
            await make_app(broker, project)
            made = await minted(broker, project, lives=timedelta(hours=1))
            for later, left in ((KEPT, 1), (KEPT + timedelta(hours=2), 0)):
                await clear_agent_sessions(broker, now=made.row.created_at + later)
                rows, _ = await list_agent_sessions(
                    broker, project, SessionFilter(), reader=None, limit=9, now=clock.now()
                )
                assert len(rows) == left

    asyncio.run(run())
