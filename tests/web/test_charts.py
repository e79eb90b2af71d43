"""Charts are numbers: where each bar stands, how high it is, and what is never lost."""

from itertools import pairwise

import pytest

from evergrant.web.charts import HEIGHT, LEAST, LOWER, Bars, bar_chart, round_up, share_bar, short, spark_line


def bars(*values: tuple[list[int], list[int]]) -> list[Bars]:
    return [Bars(f"{n}", f"hour {n}", f"#{n}", above, below) for n, (above, below) in enumerate(values)]


def test_the_highest_bar_fits_and_the_others_keep_their_share_of_it() -> None:
    chart = bar_chart(bars(([80], []), ([40], []), ([0], [])))
    high, half, none = chart.columns
    base = chart.lines[0].y
    assert [line.label for line in chart.lines] == ["0", "40", "80"]
    assert (high.boxes[0].height, half.boxes[0].height, list(none.boxes)) == (HEIGHT, HEIGHT / 2, [])
    assert high.boxes[0].y + high.boxes[0].height == half.boxes[0].y + half.boxes[0].height == base


def test_stacked_parts_touch_and_do_not_cover_each_other() -> None:
    (column,) = bar_chart(bars(([30, 10], [4, 6]))).columns
    first, second, third, fourth = column.boxes
    assert [box.series for box in column.boxes] == [1, 2, 3, 4]
    assert second.y + second.height == pytest.approx(first.y)
    assert third.y + third.height == pytest.approx(fourth.y)
    assert third.y > first.y + first.height


def test_few_failures_among_many_can_be_seen_because_they_have_their_own_scale() -> None:
    chart = bar_chart(bars(([10_000], [40]), ([10_000], [1])))
    most, one = (column.boxes[1].height for column in chart.columns)
    assert (most, one, chart.lower_label) == (LOWER, LEAST, "40")


def test_bars_stand_side_by_side_within_the_picture_with_few_labels() -> None:
    chart = bar_chart(bars(*[([n], []) for n in range(1, 31)]))
    places = [column.place for column in chart.columns]
    for left, right in pairwise(places):
        assert left.x + left.width == pytest.approx(right.x)
    assert places[-1].x + places[-1].width == pytest.approx(chart.width)
    assert all(column.boxes[0].y >= 0 for column in chart.columns)
    assert 4 <= sum(bool(column.label) for column in chart.columns) <= 6


def test_a_chart_of_nothing_is_still_one() -> None:
    assert [line.label for line in bar_chart(bars(([0], [0]), ([0], [0]))).lines] == ["0", "1"]
    assert not bar_chart([]).columns


@pytest.mark.parametrize(
    ("number", "end"), [(0, 1), (1, 1), (3, 4), (5, 6), (11, 12), (99, 100), (14_200, 16_000), (350, 400)]
)
def test_a_scale_ends_at_a_round_number_that_is_no_smaller(number: int, end: int) -> None:
    assert round_up(number) == end
    assert end == 1 or end % 2 == 0  # the line in its middle says a whole number


def test_shares_fill_the_line_and_the_smallest_stays_in_sight() -> None:
    boxes = share_bar([99_999, 0, 1])
    assert [box.series for box in boxes] == [1, 3]
    assert boxes[-1].width > 1
    assert boxes[-1].x + boxes[-1].width == pytest.approx(100)
    assert share_bar([0, 0]) == []


def test_small_lines_and_short_numbers() -> None:
    assert spark_line([0, 5, 10]) == "0.0,23.0 50.0,12.0 100.0,1.0"
    assert spark_line([3]) == "0.0,1.0 100.0,1.0"
    assert [short(number) for number in (0, 950, 1_500, 16_000, 2_000_000)] == ["0", "950", "1.5k", "16k", "2M"]
