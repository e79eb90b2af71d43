"""What an expression of Prometheus asks for: enough of its grammar to hold ours to the metrics that exist."""

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs/monitoring.md").read_text()
OF_TARGETS = {"job", "instance"}
"""The labels that Prometheus itself gives to every sample."""

_WORDS = {"and", "or", "unless", "by", "on", "without", "bool", "offset"}
_SELECTOR = re.compile(r"([a-z_][a-z0-9_]*)(?:\{([^}]*)\})?(?!\w|\s*\()")
_GROUPING = re.compile(r"\b(?:by|on|without)\s*\(([^)]*)\)")
_MATCHER = re.compile(r'(\w+)\s*(=~|!=|!~|=)\s*"([^"]*)"')


@dataclass(frozen=True)
class Selector:
    """A metric in an expression, and the labels that it is chosen by."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...]


def selectors(expression: str) -> list[Selector]:
    """Return the metrics that an expression reads."""
    rest = re.sub(r"\[[^\]]*\]|offset \w+", " ", _GROUPING.sub(" ", expression))
    return [
        Selector(name, tuple(_MATCHER.findall(inside)))
        for name, inside in _SELECTOR.findall(rest)
        if name not in _WORDS
    ]


def groupings(expression: str) -> set[str]:
    """Return the labels that an expression groups by."""
    return {label.strip() for inside in _GROUPING.findall(expression) for label in inside.split(",") if label.strip()}


def documented_metrics() -> dict[str, set[str]]:
    """Return the labels of each metric in docs/monitoring.md; a test of /metrics holds the page to what there is."""
    rows = re.findall(r"^\| `(evergrant_\w+)(?:\{([\w,]*)\})?` \|", PAGE, flags=re.MULTILINE)
    return {name: set(labels.split(",")) - {""} for name, labels in rows}


def samples() -> dict[str, set[str]]:
    """Return the labels of everything that Prometheus has of evergrant, and of `up`."""
    found = {name: labels | OF_TARGETS for name, labels in documented_metrics().items()}
    histogram = found.pop("evergrant_fetch_seconds")
    found |= {"evergrant_fetch_seconds_bucket": histogram | {"le"}, "up": OF_TARGETS}
    return found | {f"evergrant_fetch_seconds_{part}": histogram for part in ("count", "sum")}


def documented_values(metric: str, label: str) -> set[str]:
    """Return the values of a label that has a few fixed ones; empty for ids and hosts."""
    if label == "code":
        return {f"{hundreds}xx" for hundreds in range(1, 6)}
    if label != "outcome":
        return set()
    (row,) = (row for row in PAGE.splitlines() if row.startswith(f"| `{re.sub('_(bucket|count|sum)$', '', metric)}{{"))
    return set(re.findall(r"`([a-z_]+)`", row))


def problems(expression: str) -> list[str]:
    """Return what an expression names that does not exist; an empty panel or a deaf alert would be all one sees."""
    known, wrong = samples(), []
    read = selectors(expression)
    for one in read:
        if one.metric not in known:
            wrong.append(f"there is no metric {one.metric}")
            continue
        for label, operator, value in one.matchers:
            values = documented_values(one.metric, label)
            if label not in known[one.metric]:
                wrong.append(f"{one.metric} has no label {label}")
            elif values and operator in ("=", "!=") and value not in values:
                wrong.append(f"{one.metric} never has {label}={value}")
    labels = set[str]().union(*(known.get(one.metric, set()) for one in read))
    return wrong + [f"nothing here has the label {label}" for label in sorted(groupings(expression) - labels)]
