"""Signatures of webhooks, checked by the published verifier."""

import base64
import time

import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook, WebhookVerificationError

from evergrant.crypto.webhook_signature import new_webhook_secret, signature

BODY = '{"type":"webhook.test","data":{"name":"Zoë"}}'.encode()


def headers(*keys: SecretStr, message_id: str = "msg_1", body: bytes = BODY) -> dict[str, str]:
    now = int(time.time())
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(now),
        "webhook-signature": signature(keys, message_id=message_id, timestamp=now, body=body),
    }


def test_the_published_verifier_accepts_a_signature() -> None:
    secret = new_webhook_secret()
    assert Webhook(secret.get_secret_value()).verify(BODY, headers(secret))["data"] == {"name": "Zoë"}


def test_with_two_secrets_either_verifies() -> None:
    old, new = new_webhook_secret(), new_webhook_secret()
    both = headers(new, old)
    assert [part.partition(",")[0] for part in both["webhook-signature"].split(" ")] == ["v1", "v1"]
    for secret in (old, new):
        Webhook(secret.get_secret_value()).verify(BODY, both)


def test_nothing_else_verifies() -> None:
    secret, other = new_webhook_secret(), new_webhook_secret()
    verifier = Webhook(secret.get_secret_value())
    for wrong in (headers(other), headers(secret, message_id="msg_2"), headers(secret, body=BODY + b" ")):
        with pytest.raises(WebhookVerificationError):
            verifier.verify(BODY, wrong)


def test_secrets_are_long_random_and_do_not_print_themselves() -> None:
    secrets = {new_webhook_secret().get_secret_value() for _ in range(20)}
    assert len(secrets) == 20
    assert {len(base64.b64decode(secret.removeprefix("whsec_"))) for secret in secrets} == {32}
    assert "whsec_" not in repr(new_webhook_secret())
