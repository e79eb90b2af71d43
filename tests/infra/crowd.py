"""So many of everything that a project has, with names that no page may break on."""

import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from evergrant import clock
from evergrant.broker.runtime.broker import open_broker
from evergrant.crypto.sealed import Sealed
from evergrant.db import (
    AccessPolicy,
    CallRecord,
    Grant,
    GrantDirectory,
    GrantStatus,
    ManagementKey,
    OutboundApp,
    TrustedIssuer,
    Webhook,
    WebhookDelivery,
)
from evergrant.db.grant import scope_key
from evergrant.settings import Settings
from tests.infra.world import add_approvals

ODD = ("W" * 64, "ليلى العلي وأصدقاؤها", "zoë 🌻👩‍👩‍👧 café", "<b>&amp;</b> \"quoted\" 'so'")
LONG_SCOPE = "https://www.googleapis.com/auth/" + "contacts.other.readonly-" * 3


async def add_crowd(settings: Settings, project_id: str, n: int) -> Mapping[str, str]:
    """Add `n` apps, connections, keys, issuers, policies, webhooks and approvals; and deliveries to one webhook.

    Returns the ids of the first of each, by the names that the console's addresses give them.
    """
    now = clock.now()
    digest = hashlib.sha256(project_id.encode()).hexdigest()
    async with open_broker(settings) as broker, broker.database.write() as session:
        for i in range(n):
            odd, at = ODD[i % len(ODD)], now - timedelta(minutes=7 * i)
            of = {"project_id": project_id}
            app_id, grant_id = f"crowd-{i:02}-{'a' * 55}"[:64], f"{digest[:28]}{i:04x}"
            session.add(
                OutboundApp(
                    **of,
                    id=app_id,
                    name=f"{i} {odd}"[:64],
                    description=odd * 3,
                    client_id=f"client-{i}-{'c' * 80}",
                    client_secret=Sealed(b"not for opening"),
                    authorization_url=f"https://login.{'long-' * 8}provider.example/authorize",
                    token_url="https://login.provider.example/token",
                    default_scopes=[LONG_SCOPE, "openid"],
                    callback_id=f"{digest[:18]}{i:04x}",
                    created_at=at,
                    updated_at=at,
                )
            )
            await session.flush()
            user = "crowded" if i % 2 else odd[:60]
            where = {
                **of,
                "app_id": app_id,
                "user_id": user,
                "tenant_id": "t" * 64 if i % 3 else "",
                "consented_at": at,
            }
            session.add(
                Grant(
                    **where,
                    id=grant_id,
                    scope_key=scope_key([LONG_SCOPE, "openid"]),
                    scopes=[LONG_SCOPE, "openid"],
                    requested_scopes=[LONG_SCOPE, "openid"],
                    details={"name": odd},
                    status=GrantStatus.ACTIVE if i % 5 else GrantStatus.REAUTHORIZATION_REQUIRED,
                    token_sub="9" * 64,
                    access_token=Sealed(b"not for opening"),
                    access_token_type="Bearer",
                    last_refresh_error="" if i % 5 else f"invalid_grant: {odd} " * 4,
                )
            )
            session.add(GrantDirectory(**where, grant_id=grant_id, token_sub="9" * 64))
            session.add(
                ManagementKey(
                    **of,
                    id=f"crowd{i:07}",
                    name=odd,
                    digest=hashlib.sha256(f"{project_id} {i}".encode()).digest(),
                    permissions=["connect", "tokens:fetch"],
                    app_ids=[app_id],
                    created_at=at,
                )
            )
            session.add(
                TrustedIssuer(
                    **of,
                    id=f"crowd{i:07}",
                    issuer=f"https://login-{i}.{'long-' * 10}acme.example",
                    jwks_url=f"https://login-{i}.acme.example/jwks.json",
                    audience="a" * 80,
                    created_at=at,
                )
            )
            session.add(
                AccessPolicy(
                    **of,
                    id=f"crowd{i:07}",
                    app_id=app_id,
                    action="fetch",
                    claims={"roles": [odd, "sales"]},
                    scopes=[LONG_SCOPE],
                    created_at=at,
                )
            )
            session.add(
                Webhook(
                    **of,
                    id=f"crowd{i:07}",
                    url=f"https://{'long-' * 8}acme.example/hooks/{'x' * 60}/{i}",
                    description=odd,
                    secret=Sealed(b"not for opening"),
                    created_at=at,
                )
            )
            session.add(
                CallRecord(
                    **of,
                    id=f"{i:022d}",
                    at=at,
                    kind="call",
                    app_id=app_id if i % 4 else f"crowd-00-{'a' * 55}"[:64],
                    user_id=user,
                    tenant_id="t" * 64,
                    actor=f"user:{user}",
                    agent=(odd * 4)[:255],
                    act=[odd],
                    method="OPTIONS",
                    base="b" * 63,
                    path=f"/{'p' * 1_900}/{odd}",
                    status=500,
                    source="provider",
                    ms=900_000,
                    batch="b",
                )
            )
            await session.flush()
            session.add(
                WebhookDelivery(
                    **of,
                    id=f"msg_{i:028x}",
                    webhook_id="crowd0000000",
                    event_type="grant.reauthorization_required",
                    payload='{"data":{"appId":"%s"}}' % ("y" * 200),
                    status=("delivered", "failed")[i % 2],
                    attempts=3,
                    last_attempt_at=at,
                    last_status_code=500,
                    last_error="The receiver answered 500.",
                    created_at=at,
                )
            )
    async with open_broker(settings) as broker:
        await add_approvals(broker, project_id, _approvals(n, now))
    first = "crowd0000000"
    ids = dict.fromkeys(("key_id", "issuer_id", "policy_id", "webhook_id"), first)
    ids |= {"app_id": f"crowd-00-{'a' * 55}"[:64], "grant_id": f"{digest[:28]}0000", "user": "crowded"}
    return ids | {"approval_id": f"{0:022d}"}


def _approvals(n: int, now: datetime) -> Iterator[dict[str, Any]]:
    for i in range(n):
        odd = ODD[i % len(ODD)]
        yield {
            "id": f"{i:022d}",
            "app_id": f"crowd-{i:02}-{'a' * 55}"[:64],
            "user_id": odd[:60],
            "tenant_id": "t" * 64,
            "external_identifier": "e" * 255,
            "agent_id": (odd * 4)[:255],
            "agent_name": (odd * 4)[:200],
            "actor": f"session:{i:022d}",
            "method": "OPTIONS",
            "base": "b" * 63,
            "target": f"/{'p' * 1_900}/{odd}",
            "content_type": "application/json; " + "c" * 180,
            "body": (odd * 90)[:4_000],
            "reason": f"crowd{i:07}",
            "status": "pending",
            "created_at": now - timedelta(seconds=i),
        }
