"""Webhooks at the console: a receiver that is down is seen, mended, and told what it missed."""

import re
from collections.abc import Iterator

import httpx2
import pytest

from tests.console.test_keys import hidden
from tests.infra.console import Operator, words_of
from tests.infra.installation import Installation
from tests.infra.receiver import Receiver
from tests.infra.rows import rows
from tests.infra.scripted import serving

pytestmark = pytest.mark.parametrize("here", ["sqlite"], indirect=True)
ALL = ["grant.created", "grant.reauthorization_required", "grant.expiring", "grant.recovered", "grant.revoked"]
ALL += ["app.unhealthy", "app.recovered", "approval.requested"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with serving(Receiver()) as running:
        yield running


def secret_of(page: httpx2.Response) -> str:
    found = re.search(r"whsec_[\w+/=]+", page.text)
    assert found is not None, words_of(page)
    return found[0]


def added(operator: Operator, url: str) -> tuple[str, str]:
    """Add a webhook; return its id and its secret."""
    form = {"once": hidden(operator.get("webhooks/new")), "url": url, "events": ALL}
    page = operator.post("webhooks/new", form)
    assert page.status_code == 200, words_of(page)
    again = operator.post("webhooks/new", form)
    assert again.status_code == 303, "a form that is sent again makes no other"
    return again.headers["location"].rpartition("/")[2], secret_of(page)


def test_a_webhook_that_is_down_is_seen_and_told_again_what_it_missed(
    here: Installation, operator: Operator, receiver: Receiver
) -> None:
    receiver.answer("/down", 503)
    webhook_id, secret = added(operator, f"{receiver.url}/down")
    assert secret not in operator.get(f"webhooks/{webhook_id}/settings").text
    tried = operator.post(f"webhooks/{webhook_id}/test")
    page = operator.get(tried.headers["location"].partition("#")[0])
    assert "Trying again HTTP 503" in words_of(page)
    assert re.search(r"<details id=\"msg_\w+\" open>", page.text)
    assert "&#34;type&#34;: &#34;webhook.test&#34;" in page.text
    operator.post(f"webhooks/{webhook_id}/disable")
    disabled = words_of(operator.get(f"webhooks/{webhook_id}"))
    assert "Nothing is sent here" in disabled
    assert "Given up" in disabled
    operator.post(f"webhooks/{webhook_id}/enable")
    receiver.answer("/down", 204)
    assert "1 message was given up" in words_of(operator.get(f"webhooks/{webhook_id}/replay"))
    again = operator.post(f"webhooks/{webhook_id}/replay", {"days": "7"})
    assert "Waiting" in words_of(operator.get(again.headers["location"]))
    (row,) = [row for row in rows(here.settings, "webhook_deliveries") if row["webhook_id"] == webhook_id]
    assert (row["status"], row["attempts"]) == ("pending", 0)
    assert receiver.at("/down")[0].verified_with(secret)


def test_a_secret_is_replaced_once_however_often_the_form_is_sent(operator: Operator, receiver: Receiver) -> None:
    webhook_id, first = added(operator, f"{receiver.url}/rotated")
    version = hidden(operator.get(f"webhooks/{webhook_id}/rotate"), "version")
    page = operator.post(f"webhooks/{webhook_id}/rotate", {"version": version, "overlap": "3600"})
    second = secret_of(page)
    assert second != first
    assert "The old secret signs beside it until" in words_of(page)
    assert operator.post(f"webhooks/{webhook_id}/rotate", {"version": version, "overlap": "0"}).status_code == 303
    operator.post(f"webhooks/{webhook_id}/test")
    (message,) = receiver.at("/rotated")
    assert message.verified_with(second)
    assert message.verified_with(first)


def test_a_webhook_is_changed_and_deleted_with_its_log(operator: Operator, receiver: Receiver) -> None:
    webhook_id, _ = added(operator, f"{receiver.url}/changed")
    wrong = operator.post(f"webhooks/{webhook_id}/settings", {"url": "ftp://nowhere", "description": "kept"})
    assert wrong.status_code == 400
    assert "kept" in wrong.text
    form = {"url": f"{receiver.url}/changed", "description": "on call", "events": ["app.unhealthy"]}
    assert operator.post(f"webhooks/{webhook_id}/settings", form).status_code == 303
    assert "1 kind of event" in words_of(operator.get("webhooks"))
    assert operator.post(f"webhooks/{webhook_id}/delete").status_code == 303
    assert operator.get(f"webhooks/{webhook_id}").status_code == 404
