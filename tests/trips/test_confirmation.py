"""Session binding: with `requireConfirmation`, a connection counts once the backend said who came back."""

import asyncio

import httpx2
import pytest

from evergrant.broker.connect.confirmation import clear_finished_requests
from evergrant.broker.runtime.broker import open_broker
from tests.conftest import Clock
from tests.infra.installation import Installation
from tests.trips.conftest import CreateApp, stored_grants


def confirm(here: Installation, back: dict[str, str], user: str) -> httpx2.Response:
    assert back["outboundStatus"] == "connected"
    return here.backend.post("app/connect/confirm", {"confirmation": back["confirmation"], "userId": user})


@pytest.fixture
def app_id(create_app: CreateApp) -> str:
    return create_app(requireConfirmation=True)


def test_a_grant_counts_only_once_the_backend_confirmed_it(here: Installation, app_id: str, user: str) -> None:
    back = here.browser().connect(here.backend.connect_url(user, appId=app_id))
    latest = {"appId": app_id, "userId": user}
    answer = here.backend.fetch(user, appId=app_id)
    assert answer.status_code == 404
    assert "details" not in answer.json(), "there is nothing yet that could lack a scope, or be dead"
    assert here.backend.post("app/user/token/latest", latest).status_code == 404
    assert confirm(here, back, user).json() == {}
    assert here.backend.token(user, appId=app_id)
    assert here.backend.post("app/user/token/latest", latest).status_code == 200


def test_a_tenants_grant_is_confirmed_for_the_user_who_gave_it(here: Installation, app_id: str, user: str) -> None:
    tenant = f"tenant-of-{user}"
    back = here.browser().connect(here.backend.connect_url(user, appId=app_id, tenantId=tenant, tenantLevel=True))
    assert confirm(here, back, user).status_code == 200
    answer = here.backend.post("app/tenant/token/latest", {"appId": app_id, "tenantId": tenant})
    assert answer.json()["token"]["grantedBy"] == user


def test_somebody_elses_confirmation_deletes_it(here: Installation, app_id: str, user: str) -> None:
    back = here.browser().connect(here.backend.connect_url(user, appId=app_id))
    assert confirm(here, back, "mallory").status_code == 404
    assert confirm(here, back, user).status_code == 404
    assert here.backend.fetch(user, appId=app_id).status_code == 404
    assert here.backend.fetch("mallory", appId=app_id).status_code == 404
    assert stored_grants(here, user) == 0


def test_a_confirmation_works_once_and_its_replay_harms_nothing(here: Installation, app_id: str, user: str) -> None:
    back = here.browser().connect(here.backend.connect_url(user, appId=app_id))
    assert confirm(here, back, user).status_code == 200
    assert confirm(here, back, user).status_code == 404
    assert confirm(here, back, "mallory").status_code == 404
    assert here.backend.token(user, appId=app_id)


def test_a_confirmation_that_comes_too_late_is_refused(
    here: Installation, app_id: str, user: str, clock: Clock
) -> None:
    back = here.browser().connect(here.backend.connect_url(user, appId=app_id))
    clock.advance(15 * 60)
    assert confirm(here, back, user).status_code == 404
    assert here.backend.fetch(user, appId=app_id).status_code == 404


def test_a_grant_that_nobody_confirms_is_deleted_by_the_chores(
    here: Installation, app_id: str, user: str, clock: Clock
) -> None:
    here.browser().connect(here.backend.connect_url(user, appId=app_id))

    async def chores() -> None:
        async with open_broker(here.settings) as broker:
            await clear_finished_requests(broker, now=clock.now)

    clock.advance(15 * 60)
    asyncio.run(chores())
    assert stored_grants(here, user) == 1
    clock.advance(3600)
    asyncio.run(chores())
    assert stored_grants(here, user) == 0


def test_an_earlier_grant_serves_until_the_new_one_is_confirmed(here: Installation, app_id: str, user: str) -> None:
    confirm(here, here.browser().connect(here.backend.connect_url(user, appId=app_id)), user)
    first = here.backend.token(user, appId=app_id)
    back = here.browser().connect(here.backend.connect_url(user, appId=app_id))
    assert here.backend.token(user, appId=app_id) == first
    confirm(here, back, user)
    assert here.backend.token(user, appId=app_id)["id"] != first["id"]
    assert stored_grants(here, user) == 1


def test_an_earlier_grant_survives_a_refused_confirmation(here: Installation, app_id: str, user: str) -> None:
    confirm(here, here.browser().connect(here.backend.connect_url(user, appId=app_id)), user)
    first = here.backend.token(user, appId=app_id)
    back = here.browser().connect(here.backend.connect_url(user, appId=app_id))
    assert confirm(here, back, "mallory").status_code == 404
    assert here.backend.token(user, appId=app_id) == first
