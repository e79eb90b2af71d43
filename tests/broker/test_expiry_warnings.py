"""Warnings of refresh tokens that end: in time, once for each end, and not where a refresh has moved it."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from evergrant.broker.grants.expiry_warnings import warn_of_ends
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.db import Grant, WebhookDelivery
from evergrant.practice.faults import edited
from evergrant.settings import Settings
from tests.conftest import Clock
from tests.infra.installation import APP_ID, Installation, installation

DAY = 86_400


@pytest.fixture
def here(settings: Settings, clock: Clock) -> Iterator[Installation]:
    with installation(settings.model_copy(update={"refresher": False})) as running:
        made = running.backend.post("webhook/create", {"url": "https://hooks.example.com/"})
        assert made.status_code == 200, made.text
        yield running


def connected(here: Installation, user: str, *, ends_in: int | None, **answer: Any) -> None:
    """Connect, with a refresh token that ends; and so do those of the refreshes that come."""
    ending = edited(refresh_token_expires_in=ends_in, **answer)
    here.provider.state.next_token_answers += [ending] * 5
    here.connected(user)


async def told(broker: Broker) -> list[dict[str, Any]]:
    query = select(WebhookDelivery.payload).where(WebhookDelivery.event_type == "grant.expiring")
    async with broker.database.read() as session:
        return [json.loads(payload)["data"] for payload in await session.scalars(query)]


async def the_grant(broker: Broker) -> Grant:
    async with broker.database.read() as session:
        return (await session.scalars(select(Grant))).one()


@pytest.mark.parametrize(("ends_in", "warned_before"), [(60 * DAY, 7 * DAY), (8 * DAY, 2 * DAY), (3600, 900)])
async def test_who_asked_for_it_is_told_once_and_in_time(
    here: Installation, clock: Clock, ends_in: int, warned_before: int
) -> None:
    connected(here, "alice", ends_in=ends_in)
    end = clock.now + timedelta(seconds=ends_in)
    async with open_broker(here.settings) as broker:
        clock.advance(ends_in - warned_before - 60)
        assert await warn_of_ends(broker, now=clock.now) == 0
        clock.advance(61)
        assert await warn_of_ends(broker, now=clock.now) == 1
        assert await warn_of_ends(broker, now=clock.now) == 0
        (event,) = await told(broker)
        grant = await the_grant(broker)
    assert event == {
        "projectId": here.backend.project_id,
        "grantId": grant.id,
        "appId": APP_ID,
        "userId": "alice",
        "tenantId": "",
        "externalIdentifier": "",
        "scopes": grant.scopes,
        "refreshTokenExpiry": str(int(end.timestamp())),
    }


async def test_a_token_without_an_end_is_never_warned_of(here: Installation, clock: Clock) -> None:
    connected(here, "alice", ends_in=None)
    async with open_broker(here.settings) as broker:
        assert (await the_grant(broker)).warn_at is None
        clock.advance(1000 * DAY)
        assert await warn_of_ends(broker, now=clock.now) == 0


async def test_a_refresh_that_moves_the_end_moves_the_warning(here: Installation, clock: Clock) -> None:
    connected(here, "alice", ends_in=8 * DAY, expires_in=3600)
    clock.advance(5 * DAY)
    here.backend.token("alice")
    async with open_broker(here.settings) as broker:
        clock.advance(2 * DAY)
        assert await warn_of_ends(broker, now=clock.now) == 0
        clock.advance(4 * DAY + 1)
        assert await warn_of_ends(broker, now=clock.now) == 1


async def test_a_refresh_that_does_not_move_the_end_brings_no_second_warning(here: Installation, clock: Clock) -> None:
    connected(here, "alice", ends_in=8 * DAY, expires_in=3600)
    async with open_broker(here.settings) as broker:
        clock.advance(6 * DAY + 1)
        assert await warn_of_ends(broker, now=clock.now) == 1
        here.provider.state.next_token_answers.clear()
        here.provider.state.next_token_answers.append(edited(refresh_token_expires_in=2 * DAY - 1, expires_in=3600))
        here.backend.token("alice")  # the end is where it was
        assert (await the_grant(broker)).token_version == 2
        clock.advance(2 * DAY - 60)
        assert await warn_of_ends(broker, now=clock.now) == 0
        assert len(await told(broker)) == 1


async def test_replicas_that_warn_at_once_tell_of_each_end_once(here: Installation, clock: Clock) -> None:
    for user in ("alice", "bob", "carol"):
        connected(here, user, ends_in=8 * DAY)
    clock.advance(7 * DAY)
    async with open_broker(here.settings) as one, open_broker(here.settings) as other:
        counts = [await warn_of_ends(broker, now=clock.now) for broker in (one, other)]
        assert counts == [3, 0]
        assert {event["userId"] for event in await told(one)} == {"alice", "bob", "carol"}
