"""Trusted issuers: told by hand or discovered, checked before they are stored, by the API and on the command line."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from evergrant.broker.projects.trusted_issuers import create_issuer, delete_issuer, list_issuers
from evergrant.broker.runtime.broker import open_broker
from evergrant.db import TrustedIssuer
from evergrant.errors import AlreadyExists, EvergrantError, InvalidValue, MissingArgument, NotFound
from evergrant.settings import Settings
from tests.conftest import Clock
from tests.infra.installation import new_project
from tests.infra.issuer import AUDIENCE, Issuer
from tests.infra.rows import dump
from tests.infra.scripted import serving


@pytest.fixture(scope="module")
def idp() -> Iterator[Issuer]:
    with serving(Issuer()) as running:
        yield running


@pytest.fixture
def project(settings: Settings) -> str:
    return new_project(settings).project_id


def create(settings: Settings, project: str, clock: Clock, **fields: Any) -> TrustedIssuer:
    async def run() -> TrustedIssuer:
        async with open_broker(settings) as broker:
            return await create_issuer(broker, project, now=clock.now, **{"audience": AUDIENCE, **fields})

    return asyncio.run(run())


def test_the_keys_are_found_by_the_issuers_metadata(
    settings: Settings, clock: Clock, project: str, idp: Issuer
) -> None:
    row = create(settings, project, clock, issuer=idp.url)
    assert (row.issuer, row.jwks_url, row.user_claim) == (idp.url, f"{idp.url}/jwks", "sub")


def test_the_issuer_is_stored_as_its_tokens_spell_it(
    settings: Settings, clock: Clock, project: str, idp: Issuer
) -> None:
    assert create(settings, project, clock, issuer=f"{idp.url}/").issuer == idp.url


def test_an_issuer_without_metadata_is_told_with_its_keys(
    settings: Settings, clock: Clock, project: str, idp: Issuer
) -> None:
    row = create(settings, project, clock, issuer="https://login.example.com", jwks_url=f"{idp.url}/jwks")
    assert row.issuer == "https://login.example.com"


@pytest.mark.parametrize(
    ("fields", "field", "kind"),
    [
        ({"issuer": ""}, "issuer", MissingArgument),
        ({"audience": ""}, "audience", MissingArgument),
        ({"user_claim": ""}, "userClaim", InvalidValue),
        ({"issuer": "not a URL"}, "issuer", InvalidValue),
        ({"issuer": "{idp}/nowhere"}, "issuer", InvalidValue),
        ({"jwks_url": "{idp}/nowhere"}, "jwksUrl", InvalidValue),
        ({"jwks_url": "http://10.0.0.1/jwks"}, "jwksUrl", InvalidValue),
        ({"jwks_url": "https://10.0.0.1/jwks"}, "jwksUrl", InvalidValue),
        ({"jwks_url": "file:///etc/passwd"}, "jwksUrl", InvalidValue),
    ],
)
def test_an_issuer_that_could_not_work_is_not_trusted(
    settings: Settings, clock: Clock, project: str, idp: Issuer, fields: Any, field: str, kind: type[EvergrantError]
) -> None:
    before = dump(settings)
    told = {name: value.replace("{idp}", idp.url) for name, value in fields.items()}
    with pytest.raises(kind) as error:
        create(settings, project, clock, **{"issuer": idp.url, **told})
    assert error.value.details["fields"][0]["field"] == field
    assert dump(settings) == before


def test_an_issuer_is_trusted_once_in_each_project(settings: Settings, clock: Clock, project: str, idp: Issuer) -> None:
    create(settings, project, clock, issuer=idp.url)
    with pytest.raises(AlreadyExists):
        create(settings, project, clock, issuer=idp.url)
    create(settings, new_project(settings).project_id, clock, issuer=idp.url)


def test_an_issuer_is_removed_in_its_own_project_only_and_both_are_in_the_audit_log(
    settings: Settings, clock: Clock, project: str, idp: Issuer
) -> None:
    row = create(settings, project, clock, issuer=idp.url)
    other = new_project(settings).project_id

    async def remove(project_id: str) -> list[str]:
        async with open_broker(settings) as broker:
            await delete_issuer(broker, project_id, row.id)
            return [left.id for left in await list_issuers(broker, project)]

    with pytest.raises(NotFound):
        asyncio.run(remove(other))
    assert asyncio.run(remove(project)) == []
    actions = [event["action"] for event in dump(settings)["audit_events"] if event["project_id"] == project]
    assert {"issuer.created", "issuer.deleted"} <= set(actions)
