"""Management keys: recognising them costs nothing, their use is noted, and limits that make no sense are refused."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import event

from evergrant.broker.access.authentication import authenticate, write_key_uses
from evergrant.broker.access.management_keys import create_key, list_keys
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.errors import AuthenticationFailed, InvalidValue
from evergrant.settings import Settings
from tests.conftest import Clock
from tests.infra.installation import new_project
from tests.infra.rows import dump


def test_the_last_use_is_written_down_later_not_by_the_call(settings: Settings, clock: Clock) -> None:
    made = new_project(settings)

    async def use() -> tuple[Any, Any]:
        async with open_broker(settings) as broker:
            clock.advance(60)
            header = f"Bearer {made.project_id}:{made.management_key}"
            await authenticate(broker, header, client_address="127.0.0.1", now=clock.now)
            (before,) = await list_keys(broker, made.project_id)
            await write_key_uses(broker)
            (after,) = await list_keys(broker, made.project_id)
            return before.last_used_at, after.last_used_at

    assert asyncio.run(use()) == (None, clock.now)


def test_a_recognised_key_costs_no_query_for_a_few_seconds(settings: Settings, clock: Clock) -> None:
    made = new_project(settings)
    queries: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "FROM management_keys" in statement:
            queries.append(statement)

    async def use(broker: Broker, key: str) -> None:
        await authenticate(broker, f"Bearer {made.project_id}:{key}", client_address="127.0.0.1", now=clock.now)

    async def often() -> None:
        async with open_broker(settings) as broker:
            event.listen(broker.database.engine.sync_engine, "before_cursor_execute", note)
            for _ in range(100):
                await use(broker, made.management_key)
            with pytest.raises(AuthenticationFailed):  # the memory is of that key only
                await use(broker, made.management_key[:-1])

    asyncio.run(often())
    assert len(queries) == 2, "the first of each key"


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"permissions": ["everything"]}, "permissions"),
        ({"permissions": []}, "permissions"),
        ({"allowed_cidrs": ["10.0.0.0/8", "home"]}, "allowedCidrs"),
        ({"text": "short"}, "managementKey"),
        ({"text": "with a space " * 4}, "managementKey"),
        ({"text": "ü" * 40}, "managementKey"),
    ],
)
def test_a_key_that_could_not_work_is_not_made(settings: Settings, clock: Clock, limits: Any, field: str) -> None:
    project_id = new_project(settings).project_id
    before = dump(settings)

    async def make() -> None:
        async with open_broker(settings) as broker, broker.database.write() as session:
            await create_key(session, project_id, name="bad", now=clock.now, **limits)

    with pytest.raises(InvalidValue) as error:
        asyncio.run(make())
    assert error.value.details["fields"][0]["field"] == field
    assert dump(settings) == before
