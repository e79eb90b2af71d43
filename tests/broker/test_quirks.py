"""From a catalogue entry to what the protocol floor is handed: whose value counts, and what never does."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from evergrant import clock
from evergrant.broker.apps.apps import create_app, load_app
from evergrant.broker.apps.definition import AppDefinition
from evergrant.broker.apps.quirks import quirks_from, quirks_of
from evergrant.broker.apps.templates import definition_of
from evergrant.broker.operations.setup import initialise
from evergrant.broker.projects.projects import list_projects
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.catalog.loader import load_catalogue
from evergrant.db import OutboundApp
from evergrant.errors import UpstreamRejected
from evergrant.oauth2.quirks import Quirks, from_json, to_json
from evergrant.settings import Settings

ENTRY = """
name = "Example"
category = "other"
documentation_url = "https://example.com/docs"
verification = "unconfirmed"
authorization_endpoint = "https://{region}.example.com/authorize"
token_endpoint = "https://{shop}.example.com/token"
refresh_endpoint = "https://{shop}.example.com/refresh"
default_expires_in = 600
scope_separator = ","
[variables]
region = { title = "Region", enum = ["eu", "us"], default = "eu" }
shop = { title = "Shop", source = "user", pattern = "[a-z]{1,20}", example = "acme" }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "entries"
    folder.mkdir()
    (folder / "example.toml").write_text(ENTRY)
    return folder


@pytest.fixture
async def broker(settings: Settings, folder: Path) -> AsyncIterator[Broker]:
    settings = settings.model_copy(update={"catalog_dir": folder})
    await initialise(settings, project_name="Shop", redirect_origins=[])
    async with open_broker(settings) as opened:
        yield opened


async def an_app(broker: Broker, **fields: object) -> OutboundApp:
    (project,) = await list_projects(broker)
    definition: AppDefinition = replace(definition_of(broker.catalogue["example"]), id="app", **fields)  # type: ignore[arg-type]
    await create_app(broker, project.id, definition, now=clock.now())
    return await load_app(broker, project.id, "app")


async def test_the_connections_value_counts_before_the_apps_and_that_before_the_default(broker: Broker) -> None:
    app = await an_app(broker, variables={"shop": "ours"})
    assert quirks_of(broker, app).values == {"region": "eu", "shop": "ours"}
    # A connection keeps the shop that it was made with, whatever the app says later; a region is the app's alone.
    values = quirks_of(broker, app, {"shop": "theirs", "region": "us"}).values
    assert values == {"region": "eu", "shop": "theirs"}


async def test_a_stored_value_that_is_not_allowed_is_never_used_and_nothing_stands_in(broker: Broker) -> None:
    app = await an_app(broker)
    app.variables = {"region": "mars", "shop": "ours"}
    quirks = quirks_of(broker, app, {"shop": "evil.example/"})
    assert quirks.values == {}
    with pytest.raises(UpstreamRejected, match="needs a value for shop"):
        quirks.url(app.token_url, app.name)


async def test_an_app_whose_template_is_gone_has_a_provider_without_habits(broker: Broker) -> None:
    app = await an_app(broker, variables={"shop": "ours"})
    without = replace(broker, catalogue=load_catalogue())
    assert quirks_of(without, app, {"shop": "theirs"}) == Quirks()
    with pytest.raises(UpstreamRejected):
        quirks_of(without, app).url(app.token_url, app.name)


async def test_another_token_endpoint_is_where_refreshes_go_too(broker: Broker) -> None:
    app = await an_app(broker)
    assert quirks_of(broker, app).refresh_endpoint == "https://{shop}.example.com/refresh"
    app.token_url = "https://proxy.example.net/token"
    quirks = quirks_of(broker, app)
    assert (quirks.refresh_endpoint, quirks.default_expires_in, quirks.scope_separator) == ("", 600, ",")


async def test_an_address_spelled_out_where_the_entry_has_variables_now_is_no_other_one(broker: Broker) -> None:
    app = await an_app(broker, variables={"shop": "ours"})
    app.token_url = "https://ours.example.com/token"
    assert quirks_of(broker, app).refresh_endpoint == "https://{shop}.example.com/refresh"
    assert quirks_of(broker, app, {"shop": "theirs"}).refresh_endpoint == ""  # that goes to the app's shop alone


async def test_each_connections_own_host_has_a_breaker_of_its_own(broker: Broker) -> None:
    app = await an_app(broker)
    one, other = (
        broker.endpoints.at(quirks_of(broker, app, {"shop": shop}).fill(app.token_url)) for shop in ("a", "b")
    )
    assert one is not other
    assert one is broker.endpoints.at("https://a.example.com/token?x=1")


def test_every_entry_of_the_library_becomes_quirks_that_can_be_stored() -> None:
    for template in load_catalogue().values():
        quirks = quirks_from(template, {})
        assert from_json(to_json(quirks)) == quirks
