"""Charts as geometry: numbers in, rectangles and labels out. `parts/charts.html` writes them as SVG.

Everything is in the units of a fixed `viewBox`, so that no chart needs a style or a script.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

WIDTH, HEIGHT = 720.0, 178.0
"""Of a chart of bars: all, and of that for the bars above the line."""
LEFT, TOP = 44.0, 8.0
LOWER, BETWEEN, BELOW = 46.0, 14.0, 26.0
"""The failures' part below the line, its distance from it, and room for the labels of the hours."""
BAR_SHARE = 0.68
"""How much of its place a bar fills."""
LEAST = 1.5
"""What is not 0 can be seen: so high at least."""
LEAST_LOW = 10
"""The lower scale ends at no less, or a single failure would look like a wall."""
LABELS = 6
"""So many labels below the bars at most."""


@dataclass(frozen=True, slots=True)
class Bars:
    """One hour or day: what is drawn above the line, what below it, and what is said about it."""

    label: str
    said: str
    href: str
    above: Sequence[int]
    below: Sequence[int] = ()
    is_gap: bool = False
    """Whether nothing is known, which is not the same as nothing."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle. `series` is 1, 2, 3, and has its colour."""

    series: int
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the grid with its number."""

    y: float
    label: str


@dataclass(frozen=True, slots=True)
class Column:
    """What is drawn of one hour or day."""

    boxes: Sequence[Box]
    place: Box
    """All of its place, which leads to the list behind it."""
    label: str
    """Below it; empty where there is no room."""
    label_x: float
    said: str
    href: str
    is_gap: bool


@dataclass(frozen=True, slots=True)
class BarChart:
    """Bars, stacked; failures hang below the line, on a scale of their own."""

    width: float
    height: float
    left: float
    lines: Sequence[Line]
    columns: Sequence[Column]
    label_y: float
    lower_top: float
    lower_label: str
    """The number at the end of the lower scale; empty where nothing hangs below."""
    lower_end: float


def bar_chart(steps: Sequence[Bars]) -> BarChart:
    """Return a chart of bars side by side."""
    top = round_up(max((sum(one.above) for one in steps), default=0))
    has_below = any(sum(one.below) for one in steps)
    low = round_up(max(LEAST_LOW, *(sum(one.below) for one in steps)) if steps else 1)
    step = (WIDTH - LEFT) / max(1, len(steps))
    base, lower_top = TOP + HEIGHT, TOP + HEIGHT + BETWEEN
    end = lower_top + LOWER if has_below else base
    every = max(1, -(-len(steps) // LABELS))
    columns = []
    for number, one in enumerate(steps):
        x, width = LEFT + step * (number + (1 - BAR_SHARE) / 2), step * BAR_SHARE
        boxes = _stack(one.above, x, width, base, HEIGHT / top, up=True, first=1)
        boxes += _stack(one.below, x, width, lower_top, LOWER / low, up=False, first=1 + len(one.above))
        columns.append(
            Column(
                boxes,
                Box(0, LEFT + step * number, TOP, step, end - TOP),
                one.label if (len(steps) - 1 - number) % every == every // 2 else "",
                x + width / 2,
                one.said,
                one.href,
                one.is_gap,
            )
        )
    lines = [Line(base - HEIGHT * share, short(round(top * share))) for share in (0, 0.5, 1)]
    if top == 1:
        lines.pop(1)
    label = short(low) if has_below else ""
    return BarChart(WIDTH, end + BELOW, LEFT, lines, columns, end + BELOW - 6, lower_top, label, end)


def _stack(
    values: Sequence[int], x: float, width: float, base: float, scale: float, *, up: bool, first: int
) -> list[Box]:
    """Put values on each other, away from the line at `base`."""
    boxes, at = [], base
    for series, value in enumerate(values, start=first):
        if value <= 0:
            continue
        height = max(LEAST, value * scale)
        boxes.append(Box(series, x, at - height if up else at, width, height))
        at += -height if up else height
    return boxes


def share_bar(parts: Sequence[int]) -> list[Box]:
    """Return how parts make up a whole, as boxes in a line of 100: in their order; no part vanishes."""
    whole = sum(parts)
    if whole <= 0:
        return []
    widths = [max(LEAST, part * 100 / whole) if part > 0 else 0.0 for part in parts]
    fit = 100 / sum(widths)
    boxes, x = [], 0.0
    for series, width in enumerate(widths, start=1):
        if width:
            boxes.append(Box(series, x, 0, width * fit, 6))
        x += width * fit
    return boxes


def spark_line(values: Sequence[int], *, width: float = 100, height: float = 24) -> str:
    """Return the points of a small line for `<polyline points>`; a single value is a flat line."""
    top = max(values, default=0) or 1
    shown = [*values, *values][:2] if len(values) < 2 else list(values)
    step = width / max(1, len(shown) - 1)
    room = height - 2
    return " ".join(f"{step * n:.1f},{1 + room - value / top * room:.1f}" for n, value in enumerate(shown))


def round_up(number: int) -> int:
    """Return the next round number, where a scale can end, with a whole number in its middle; 1 for nothing."""
    if number <= 1:
        return 1
    unit: int = 10 ** int(log10(number))
    ends = [unit * tenths // 10 for tenths in (10, 12, 16, 20, 30, 40, 50, 60, 80, 100)]
    return next(end for end in ends if end >= number and end % 2 == 0)


def short(number: int) -> str:
    """Return a number as a scale shows it: `950`, `1.5k`, `16k`, `2M`."""
    for size, sign in ((1_000_000, "M"), (1_000, "k")):
        if number >= size:
            return f"{number / size:.1f}".removesuffix(".0") + sign
    return str(number)
