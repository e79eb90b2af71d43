"""The commands about webhooks."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from evergrant.settings import Settings
from tests.cli.conftest import Evergrant
from tests.infra.receiver import Receiver
from tests.infra.scripted import serving
from tests.infra.serving import environment_of
from tests.infra.waiting import PATIENCE, wait_until


@pytest.fixture
def hooks() -> Iterator[Receiver]:
    with serving(Receiver()) as running:
        yield running


def test_a_webhook_is_added_tried_listed_and_removed(
    evergrant: Evergrant, settings: Settings, project: str, hooks: Receiver
) -> None:
    added = evergrant(settings, "webhooks", "add", f"{hooks.url}/a", "--event", "app.unhealthy", "--description", "Ops")
    assert added.code == 0, added.err
    webhook, secret = added.out.split()
    (listed,) = evergrant(settings, "webhooks", "list", "--json").json
    assert listed == {
        "id": webhook,
        "url": f"{hooks.url}/a",
        "events": ["app.unhealthy"],
        "status": "enabled",
        "failingSince": None,
        "description": "Ops",
    }
    tried = evergrant(settings, "webhooks", "test", webhook)
    assert (tried.code, tried.out.endswith("  accepted with 204\n")) == (0, True)
    assert hooks.received[0].verified_with(secret)["type"] == "webhook.test"
    assert evergrant(settings, "webhooks", "remove", webhook).code == 0
    assert evergrant(settings, "webhooks", "list").out == "none\n"
    assert evergrant(settings, "webhooks", "remove", webhook).code == 1


def test_a_test_that_is_not_accepted_says_so_and_is_in_the_log(
    evergrant: Evergrant, settings: Settings, project: str, hooks: Receiver
) -> None:
    webhook = evergrant(settings, "webhooks", "add", f"{hooks.url}/a").out.split()[0]
    hooks.answer("/a", 404)
    tried = evergrant(settings, "webhooks", "test", webhook)
    assert tried.code == 1
    assert "The receiver answered 404." in tried.out
    (logged,) = evergrant(settings, "webhooks", "deliveries", "--webhook", webhook, "--json").json
    assert (logged["event"], logged["status"], logged["attempts"], logged["answer"]) == (
        "webhook.test",
        "pending",
        1,
        404,
    )
    assert evergrant(settings, "webhooks", "deliveries", "--status", "failed").out == "none\n"
    assert evergrant(settings, "webhooks", "replay", logged["id"]).out == "1 to be delivered again\n"
    assert evergrant(settings, "webhooks", "replay", "--failed-of", webhook, "--since", "2026-01-31").out.startswith(
        "0 "
    )
    assert evergrant(settings, "webhooks", "replay").code == 2
    assert evergrant(settings, "webhooks", "replay", logged["id"], "--since", "2026-01-31").code == 2


def test_a_refresher_that_runs_alone_delivers(
    evergrant: Evergrant, settings: Settings, project: str, hooks: Receiver
) -> None:
    webhook = evergrant(settings, "webhooks", "add", f"{hooks.url}/a").out.split()[0]
    delivery = evergrant(settings, "webhooks", "test", webhook).out.split()[0]
    assert evergrant(settings, "webhooks", "replay", delivery).code == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "evergrant", "refresher"],
        env={**os.environ, **environment_of(settings)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: len(hooks.received) >= 2, "the refresher has delivered")
    finally:
        process.terminate()
        assert process.wait(timeout=PATIENCE) == 0
    assert [one.id for one in hooks.received] == [delivery, delivery]


def test_a_secret_is_replaced_and_printed_once(
    evergrant: Evergrant, settings: Settings, project: str, hooks: Receiver
) -> None:
    webhook, old = evergrant(settings, "webhooks", "add", f"{hooks.url}/a").out.split()
    _, new = evergrant(settings, "webhooks", "rotate-secret", webhook, "--overlap-hours", "1").out.split()
    assert evergrant(settings, "webhooks", "test", webhook).code == 0
    for secret in (old, new):
        assert hooks.received[0].verified_with(secret)
    assert "whsec_" not in evergrant(settings, "webhooks", "list", "--json").out


def test_an_address_within_is_refused(evergrant: Evergrant, settings: Settings, project: str) -> None:
    refused = evergrant(settings, "webhooks", "add", "https://10.0.0.1/hooks")
    assert (refused.code, refused.out) == (1, "")
    assert "EVERGRANT_EGRESS_ALLOW" in refused.err
