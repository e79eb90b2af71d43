"""What is noted in memory until it is written down: nothing is lost by a failing database, nothing is written twice."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from evergrant.broker.runtime.unwritten_uses import Unwritten, UnwrittenUses
from evergrant.errors import Unavailable

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
LATER = NOON + timedelta(minutes=1)

Moments = Sequence[tuple[str, datetime]]


async def test_what_is_written_waits_no_longer() -> None:
    uses: Unwritten[str] = Unwritten()
    written: list[Moments] = []

    async def write(part: Moments) -> None:
        written.append(part)

    for key in ("a", "b", "c"):
        uses.note_latest(key, NOON)
    await uses.drain(write, at_once=2)
    await uses.drain(write, at_once=2)
    assert written == [[("a", NOON), ("b", NOON)], [("c", NOON)]]
    assert len(uses) == 0


async def test_what_could_not_be_written_waits_on() -> None:
    uses: Unwritten[str] = Unwritten()

    async def write(part: Moments) -> None:
        if part[0][0] == "b":
            raise Unavailable

    for key in ("a", "b", "c"):
        uses.note_latest(key, NOON)
    with pytest.raises(Unavailable):
        await uses.drain(write, at_once=1)
    assert len(uses) == 2


async def test_one_that_cannot_be_written_is_dropped_and_holds_nothing_else_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    uses: Unwritten[str] = Unwritten()
    written: list[str] = []

    async def write(part: Moments) -> None:
        if any(key == "bad" for key, _ in part):
            raise ValueError("the database takes no such text")
        written.extend(key for key, _ in part)

    for key in ("a", "bad", "b", "c", "d"):
        uses.note_latest(key, NOON)
    await uses.drain(write, at_once=3)
    assert written == ["a", "b", "c", "d"]
    assert len(uses) == 0
    assert len([record for record in caplog.records if "cannot be written" in record.message]) == 1


async def test_a_use_during_the_writing_is_written_the_next_time() -> None:
    uses: Unwritten[str] = Unwritten()
    written: list[Moments] = []

    async def write(part: Moments) -> None:
        written.append(part)
        if len(written) == 1:
            uses.note_latest("a", LATER)
            uses.note_latest("b", LATER)

    uses.note_latest("a", NOON)
    await uses.drain(write, at_once=10)
    assert written == [[("a", NOON)]]
    await uses.drain(write, at_once=10)
    assert written == [[("a", NOON)], [("a", LATER), ("b", LATER)]]


async def test_of_a_key_the_last_use_counts_and_of_its_addresses_the_first() -> None:
    uses = UnwrittenUses()
    uses.note_key("P1", "key", "192.0.2.1", at=NOON)
    uses.note_key("P1", "key", "192.0.2.1", at=LATER)
    uses.note_key("P1", "key", "192.0.2.2", at=LATER)
    keys: list[tuple[tuple[str, str], datetime]] = []
    addresses: list[tuple[tuple[str, str, str], datetime]] = []

    async def write_keys(part: Sequence[tuple[tuple[str, str], datetime]]) -> None:
        keys.extend(part)

    async def write_addresses(part: Sequence[tuple[tuple[str, str, str], datetime]]) -> None:
        addresses.extend(part)

    await uses.keys.drain(write_keys, at_once=10)
    await uses.addresses.drain(write_addresses, at_once=10)
    assert keys == [(("P1", "key"), LATER)]
    assert addresses == [(("P1", "key", "192.0.2.1"), NOON), (("P1", "key", "192.0.2.2"), LATER)]


def test_an_address_that_is_written_down_is_not_noted_again() -> None:
    uses = UnwrittenUses()
    uses.know_address("P1", "key", "192.0.2.1")
    uses.note_key("P1", "key", "192.0.2.1", at=NOON)
    uses.note_key("P1", "other", "192.0.2.1", at=NOON)
    assert (len(uses.keys), len(uses.addresses)) == (2, 1)
