"""A receiver of webhooks is told things by somebody else, or the same thing once more: it can tell."""

import json
import time

from pydantic import SecretStr
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from evergrant.crypto.webhook_signature import new_webhook_secret, signature
from tests.infra.installation import Installation
from tests.infra.receiver import Received, Receiver
from tests.infra.scripted import serving
from tests.infra.waiting import wait_until


def verifies(secret: str, body: bytes, headers: dict[str, str]) -> bool:
    """Ask the published verifier."""
    try:
        Verifier(secret).verify(body, headers)
    except WebhookVerificationError:
        return False
    return True


def told(here: Installation) -> tuple[str, Received]:
    """Return a webhook's secret, and a message that it was sent."""
    with serving(Receiver()) as hooks:
        made = here.backend.post("webhook/create", {"url": f"{hooks.url}/hook"}).json()
        assert here.backend.post("webhook/test", {"id": made["webhook"]["id"]}).status_code == 200
        wait_until(lambda: bool(hooks.received), "it is told")
        here.backend.post("webhook/delete", {"id": made["webhook"]["id"]})
        return made["secret"], hooks.received[0]


def test_a_message_that_somebody_else_made_up_or_changed_does_not_verify(here: Installation) -> None:
    secret, message = told(here)
    headers = dict(message.headers)
    event = json.loads(message.body)
    changed = json.dumps({**event, "type": "grant.created"}).encode()
    forged = {**headers, "webhook-id": "msg_of_an_attacker"}
    others = signature(
        [new_webhook_secret()],
        message_id=headers["webhook-id"],
        timestamp=int(headers["webhook-timestamp"]),
        body=message.body,
    )
    assert not verifies(secret, changed, headers)
    assert not verifies(secret, message.body + b" ", headers)
    assert not verifies(secret, message.body, forged)
    assert not verifies(secret, message.body, {**headers, "webhook-signature": others})
    assert not verifies(secret, message.body, {**headers, "webhook-signature": "v1,"})
    assert verifies(secret, message.body, headers)  # control


def test_a_message_that_is_replayed_is_too_old_or_has_the_id_that_was_seen(here: Installation) -> None:
    secret, message = told(here)
    headers = dict(message.headers)
    assert message.id.startswith("msg_")
    for seconds in (-600, 600):
        moved = {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) + seconds)}
        assert not verifies(secret, message.body, moved), "the time is signed too"
    old = int(time.time()) - 600
    signed = signature([SecretStr(secret)], message_id=message.id, timestamp=old, body=message.body)
    late = {**headers, "webhook-timestamp": str(old), "webhook-signature": signed}
    assert not verifies(secret, message.body, late)
    assert verifies(secret, message.body, headers)  # control
