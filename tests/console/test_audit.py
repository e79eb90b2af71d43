"""The audit log at the console: found, verified and exported."""

import json
import re

import pytest

from evergrant.broker.audit import browsing
from tests.infra.console import Operator, words_of
from tests.infra.installation import Installation


def reported(here: Installation, action: str, n: int, **fields: str) -> None:
    body = {"action": action, "type": "info", "actorId": "billing", **fields}
    for _ in range(n):
        assert here.backend.http.post("/v1/mgmt/audit/event", json=body).status_code == 200


def test_records_are_found_by_each_filter_and_by_all_together(here: Installation, operator: Operator) -> None:
    reported(here, "invoice.sent", 31, userId="zoe")
    reported(here, "invoice.paid", 1, userId="zoe")
    key = f"key:{here.backend.management_key.split('_')[1]}"
    assert "invoice.paid" in words_of(operator.get("audit?user=zoe"))
    page = operator.get("audit?action=invoice.sent")
    assert page.text.count("<details") == browsing.PAGE
    older = page.text.partition("at=")[2].partition('"')[0].replace("&amp;", "&")
    assert operator.get(f"audit?at={older}").text.count("<details") == 1
    both = operator.get(f"audit?action=invoice.paid&user=zoe&actor={key}&from=2020-01-01&to=2099-12-31")
    assert both.text.count("<details") == 1
    assert re.search("reported invoice.paid .* Action invoice.paid", words_of(both)), (
        "a sentence, and the action in its row"
    )
    assert "No record says that." in words_of(operator.get("audit?user=nobody"))
    assert "No record says that." in words_of(operator.get("audit?user=zoe&to=2020-01-01"))
    assert operator.get("audit?from=yesterday").status_code == 400
    answer = here.backend.http.get("/v1/mgmt/audit/records?action=invoice.paid&userId=zoe")
    assert [one["action"] for one in answer.json()["audits"]] == ["invoice.paid"]


def test_a_search_by_several_filters_stops_after_a_stretch_and_says_how_far_it_came(
    here: Installation, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported(here, "stretch.first", 1, userId="yan")
    reported(here, "stretch.between", 5)
    monkeypatch.setattr(browsing, "STRETCH", 3)
    page = operator.get("audit?action=stretch.first&user=yan")
    assert "back to" in words_of(page)
    assert "<details" not in page.text
    at = page.text.partition("at=")[2].partition("&")[0]
    assert operator.get(f"audit?action=stretch.first&user=yan&at={at}").text.count("<details") == 1


def test_the_log_is_verified_and_exported(here: Installation, operator: Operator) -> None:
    page = operator.post("audit/verify")
    exported = operator.get("audit/export")
    lines = [json.loads(line) for line in exported.text.splitlines()]
    assert [line["sequence"] for line in lines] == list(range(1, len(lines) + 1))
    assert "attachment" in exported.headers["content-disposition"]
    assert f"{len(lines)} records are as they were written" in words_of(page)
    assert lines[-1]["hash"] in page.text
    answer = here.backend.http.get("/v1/mgmt/audit/verify").json()
    assert (answer["head"], answer["problem"]) == (lines[-1]["hash"], "")
    by_call = here.backend.http.get("/v1/mgmt/audit/export")
    assert by_call.text == exported.text
