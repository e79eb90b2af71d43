"""What pages say about what was done: charts, the sentences under them, figures. Numbers in, words and shapes out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from evergrant import clock
from evergrant.broker.activity.attention import AppAtAGlance
from evergrant.broker.activity.series import PERIODS, ActivityOf, Interval, Sums
from evergrant.db import OutboundApp
from evergrant.web.charts import BarChart, Bars, bar_chart
from evergrant.web.logos import logo_source
from evergrant.web.tiles import Tile, tile_of
from evergrant.web.words import counted, grouped, span

PERIOD_WORDS = {"24h": "24 hours", "7d": "7 days", "30d": "30 days"}
FAILED = ("retried", "ended", "refused", "app_refused", "broken")
REFRESH_LEGEND = ("Refreshed", "Provider unavailable, tried again", "Refused, or the consent ended")
GAP = "no refresher ran"


@dataclass(frozen=True, slots=True)
class Row:
    """One hour or day in the table that says the same as the chart."""

    id: str
    """What the chart's bar leads to."""
    label: str
    values: Sequence[int]
    is_gap: bool


@dataclass(frozen=True, slots=True)
class Drawn:
    """A chart, what it shows in one sentence, and the same as a table."""

    chart: BarChart
    caption: str
    legend: Sequence[str]
    rows: Sequence[Row]


def tiles_of(apps: Sequence[AppAtAGlance]) -> dict[str, Tile]:
    """Return each app's tile by the app's id."""
    return {one.app.id: tile_of(one.app.id, one.app.name, logo_source(one.app, one.logo_version)) for one in apps}


def period_of(asked: str) -> str:
    """Return a period that there is: the shortest for whatever else an address says."""
    return asked if asked in PERIODS else next(iter(PERIODS))


def label_of(step: Interval, period: str) -> str:
    """Return an hour or day as a chart names it: `14:00`, `3 Nov`. Both in UTC."""
    return f"{step.start:%H:%M}" if period == "24h" else f"{step.start.day} {step.start:%b}"


def refreshes_drawn(found: ActivityOf, table: str, names: Mapping[str, str]) -> Drawn:
    """Draw refreshes, and their failures on a scale of their own. `table` is the address of the table."""
    series = [_refreshes_of(step.sums) for step in found.steps]

    def said(values: Sequence[int]) -> str:
        ok, retried, refused = values
        return f"{grouped(ok)} refreshed, {grouped(retried)} tried again, {grouped(refused)} refused or ended"

    return _drawn(found, table, series, said, REFRESH_LEGEND, refreshes_said(found, names), above=1)


def fetches_drawn(found: ActivityOf, table: str) -> Drawn:
    """Draw fetches, and those that brought no token on a scale of their own."""
    series = [[step.sums.of(f"fetch:{what}:").n for what in ("answered", "failed", "refused")] for step in found.steps]

    def said(values: Sequence[int]) -> str:
        answered, failed, refused = values
        return f"{grouped(answered)} answered, {grouped(failed)} failed, {grouped(refused)} refused"

    legend = ("Answered", "Provider or database away", "Refused")
    return _drawn(found, table, series, said, legend, fetches_said(found.total), above=1)


def _drawn(
    found: ActivityOf,
    table: str,
    series: Sequence[Sequence[int]],
    said: Callable[[Sequence[int]], str],
    legend: Sequence[str],
    caption: str,
    *,
    above: int,
) -> Drawn:
    rows = []
    for number, (step, values) in enumerate(zip(found.steps, series, strict=True)):
        gap = step.without_refresher and not sum(values)
        rows.append(Row(f"at-{number}", label_of(step, found.period), values, gap))
    bars = [
        Bars(
            row.label,
            f"{row.label}: {GAP if row.is_gap else said(row.values)}",
            f"{table}#{row.id}",
            row.values[:above],
            row.values[above:],
            row.is_gap,
        )
        for row in rows
    ]
    if gaps := sum(row.is_gap for row in rows):
        unit = "hour" if found.period == "24h" else "day"
        caption = f"{caption} In {counted(gaps, unit)}, hatched, {GAP}."
    return Drawn(bar_chart(bars), caption, legend, rows)


def _refreshes_of(sums: Sums) -> list[int]:
    failed = {name: sums[f"refresh:{name}"].n for name in FAILED}
    return [sums["refresh:ok"].n, failed.pop("retried"), sum(failed.values())]


def refreshes_said(found: ActivityOf, names: Mapping[str, str]) -> str:
    """Return in a sentence how refreshes went, and when and where most of the failures were."""
    ok, retried, refused = _refreshes_of(found.total)
    failed = retried + refused
    if not ok + failed:
        return "Nothing was refreshed."
    if not failed:
        return f"All {grouped(ok)} went well." if ok > 1 else "The one refresh went well."
    text = f"{grouped(failed)} of {grouped(ok + failed)} failed"
    if failed == 1:
        return f"{text}."
    places = []
    by_app = {names[app]: sum(_refreshes_of(sums)[1:]) for app, sums in found.by_app.items() if app in names}
    if len(names) > 1 and by_app and max(by_app.values()) * 2 > failed:
        places.append(f"at {max(by_app, key=lambda name: by_app[name])}")
    worst = max(found.steps, key=lambda step: sum(_refreshes_of(step.sums)[1:]))
    if sum(_refreshes_of(worst.sums)[1:]) * 2 > failed:
        places.append(f"{'at' if found.period == '24h' else 'on'} {label_of(worst, found.period)}")
    return f"{text}, most of them {', '.join(places)}." if places else f"{text}."


def fetches_said(total: Sums) -> str:
    """Return in a sentence how fetches went."""
    answered, refused, failed = (total.of(f"fetch:{what}:").n for what in ("answered", "refused", "failed"))
    if not answered + refused + failed:
        return "No token was fetched."
    if not refused + failed:
        return f"All {grouped(answered)} were answered." if answered > 1 else "The one fetch was answered."
    return f"{grouped(refused + failed)} of {grouped(answered + refused + failed)} brought no token."


def percent(part: int, whole: int) -> str:
    """Return a share that never rounds to all or to nothing: `99.99%`, `0.4%`, `under 0.01%`."""
    if part in (0, whole) or not whole:
        return "0%" if not part else "100%"
    share = part * 100 / whole
    if 0.95 <= share <= 99:
        return f"{share:.1f}%".replace(".0%", "%")
    if share < 0.01:
        return "under 0.01%"
    return f"{min(share, 99.99):.2f}%"


def milliseconds(ms: int | None, *, none: str = "\N{EN DASH}") -> str:
    """Return a duration: `148 ms`, `1.8 s`."""
    if ms is None:
        return none
    return f"{grouped(ms)} ms" if ms < 1000 else f"{ms / 1000:.1f} s".replace(".0 s", " s")


def within_said(sums: Sums) -> str:
    """Return within what time most calls to a token endpoint ended."""
    return milliseconds(sums.within, none="over 10 s" if sums.of("call:").n else "\N{EN DASH}")


def calls_said(sums: Sums) -> str:
    """Return in a sentence how long an app's token endpoint takes; nothing where it was not called."""
    calls = sums.of("call:")
    if not calls.n:
        return ""
    average, longest = milliseconds(calls.average), milliseconds(calls.ms_max)
    return (
        f"The token endpoint takes {average} on average; 95 of 100 calls ended within {within_said(sums)}, "
        f"the longest took {longest}."
    )


def lasting(since: datetime) -> str:
    """Return for how long something has been so: `52 min`."""
    return span((clock.now() - since).total_seconds())


@dataclass(frozen=True, slots=True)
class EndpointHost:
    """The token endpoints of one host."""

    host: str
    sums: Sums


def slowest_hosts(apps: Sequence[OutboundApp], by_app: Mapping[str, Sums], most: int = 5) -> list[EndpointHost]:
    """Return the hosts whose token endpoints take longest, by how long most calls take and then by the average."""
    hosts: dict[str, Sums] = {}
    for app in apps:
        host = urlsplit(app.token_url).netloc
        if app.id in by_app and by_app[app.id].of("call:").n and host:
            merged = hosts.setdefault(host, Sums())
            for counter, one in by_app[app.id].items():
                merged[counter] += one

    def slowness(one: EndpointHost) -> tuple[float, int]:
        within, all_calls = one.sums.within, one.sums.of("call:")
        return (within if within is not None else float("inf"), all_calls.average or 0)

    found = sorted((EndpointHost(host, sums) for host, sums in hosts.items()), key=slowness, reverse=True)
    return found[:most]


def by_trouble(apps: Sequence[AppAtAGlance]) -> list[AppAtAGlance]:
    """Return apps with those first that need somebody; the larger before the smaller."""
    return sorted(
        apps, key=lambda one: (one.app.unhealthy_since is None, -one.reconnect, -one.retrying, -(one.connections or 0))
    )
