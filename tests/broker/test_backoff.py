"""How long to wait: longer after each failure, never beyond the bound, and never in step with others."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from evergrant.broker.runtime.backoff import doubling, jittered


@given(st.floats(0, 1e6), st.floats(0, 1), st.floats(1, 2))
def test_a_jittered_span_lies_between_its_shares(seconds: float, low: float, high: float) -> None:
    assert seconds * low * 0.999 <= jittered(seconds, (low, high)) <= seconds * high * 1.001


@given(st.integers(1, 10_000))
def test_a_pause_doubles_up_to_its_bound_and_varies_by_a_quarter(failures: int) -> None:
    plain = min(600.0, 5.0 * 2.0 ** (failures - 1)) if failures < 20 else 600.0
    assert plain * 0.75 <= doubling(5.0, 600.0, failures=failures) <= plain * 1.25


def test_spans_can_be_timedeltas() -> None:
    day, minute = timedelta(days=1), timedelta(minutes=1)
    assert day * 0.5 <= jittered(day, (0.5, 0.65)) <= day * 0.65
    assert minute * 3 <= doubling(minute, timedelta(hours=12), failures=3) <= minute * 5


def test_two_that_failed_together_do_not_come_back_together() -> None:
    assert len({doubling(5.0, 600.0, failures=1) for _ in range(20)}) == 20
    assert len({jittered(7.0) for _ in range(20)}) == 20
