"""The dashboard and the alert rules: they ask for what `/metrics` has, or nobody would notice that they are silent."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.infra.promql import PAGE, documented_metrics, groupings, problems, samples, selectors

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/monitoring"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "grafana/evergrant.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ASKED = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_there_is(rule: dict[str, Any]) -> None:
    assert problems(rule["expr"]) == []
    told = set(re.findall(r"\$labels\.(\w+)", rule.get("annotations", {}).get("summary", "")))
    kept = groupings(rule["expr"]) or set[str]().union(*(samples()[one.metric] for one in selectors(rule["expr"])))
    assert told <= kept, "the alert does not have these labels"


def test_the_page_shows_the_alerts_as_they_are() -> None:
    shown = re.search(r"^## Alerts$.*?^```yaml\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert shown is not None
    assert (FOLDER / "alerts.yml").read_text().partition("\n")[2] == shown[1]


def test_each_panel_of_the_dashboard_asks_for_what_there_is() -> None:
    assert {(title, problem) for title, expression in ASKED for problem in problems(expression)} == set()
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in PANELS:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24, panel["title"]
        assert panel["description"], panel["title"]
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_the_dashboard_shows_every_metric() -> None:
    shown = {one.metric for _, expression in ASKED for one in selectors(expression)}
    shown = {re.sub("^(evergrant_fetch_seconds)_.*", r"\1", metric) for metric in shown}
    assert documented_metrics().keys() - shown == set()


def test_a_name_that_is_none_would_be_noticed() -> None:
    assert problems('sum by (user) (rate(evergrant_fetches_total{job="x"}[5m]))') == [
        "there is no metric evergrant_fetches_total",
        "nothing here has the label user",
    ]
    assert problems('evergrant_fetch_seconds_count{app="x"}') == ["evergrant_fetch_seconds_count has no label app"]
    assert problems('evergrant_refreshes_total{outcome="dead"}') == ["evergrant_refreshes_total never has outcome=dead"]
