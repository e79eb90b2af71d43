"""What calls are made with again and again: it stands for a second at most, and for no write to grants."""

import asyncio
import time
from typing import cast

import pytest

from evergrant.broker.runtime import hot_set
from evergrant.broker.runtime.hot_set import HotSet
from evergrant.db.engine import Database


class Written:
    """A database of which only is known how often its grants were written to."""

    grant_writes = 0


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def kept(written: Written) -> HotSet[str, int]:
    return HotSet(cast("Database", written))


async def test_nothing_is_kept_longer_than_its_time(kept: HotSet[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot_set, "SECONDS", 0.01)
    kept.put("a", 1, read_since=kept.mark())
    assert len(kept) == 1  # it is forgotten by a timer, which has had no turn yet
    await asyncio.sleep(0.05)
    assert (kept.get("a"), len(kept)) == (None, 0)  # a credential in the clear does not wait for its next use


async def test_nothing_is_kept_longer_where_the_process_was_held_up_so_that_its_timers_are_late(
    kept: HotSet[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot_set, "SECONDS", 0.01)
    kept.put("a", 1, read_since=kept.mark())
    time.sleep(0.02)  # it holds the event loop up, as a machine under load does
    assert (kept.get("a"), len(kept)) == (None, 0)


async def test_a_write_to_grants_drops_everything_also_what_was_read_before_it(
    kept: HotSet[str, int], written: Written
) -> None:
    kept.put("a", 1, read_since=kept.mark())
    before = kept.mark()
    written.grant_writes += 1
    assert kept.get("a") is None
    kept.put("a", 1, read_since=before)
    assert kept.get("a") is None
    kept.put("a", 2, read_since=kept.mark())
    assert kept.get("a") == 2


async def test_what_took_long_to_read_is_not_kept_nor_more_than_there_is_room_for(
    kept: HotSet[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot_set, "MOST", 1)
    mark = kept.mark()
    kept.put("a", 1, read_since=mark._replace(at=mark.at - 1))
    assert kept.get("a") is None
    kept.put("a", 1, read_since=mark)
    kept.put("b", 2, read_since=mark)
    assert (kept.get("a"), kept.get("b")) == (1, None)
