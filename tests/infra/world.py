"""A project that has been in use for a month: what the console's tests and pictures look at.

Rows are written past the application, with moments that go by `now`, so that the same `now` gives the same pages. The
people and companies are made up, and nothing that is sealed here opens.
"""

import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from pydantic import SecretStr
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant import clock
from evergrant.broker.audit.record import Actor, record
from evergrant.broker.operations.setup import InitResult, initialise
from evergrant.broker.runtime.agent_limits import SessionApp
from evergrant.broker.runtime.broker import Broker, open_broker
from evergrant.broker.runtime.places import slot_in
from evergrant.broker.trials.steps import Step, StepName, StepState, to_json
from evergrant.broker.webhooks.outbox import first_message_id
from evergrant.crypto.sealed import Sealed
from evergrant.db import (
    Activity,
    AgentSession,
    Approval,
    AppTest,
    CallRecord,
    Grant,
    GrantCount,
    GrantDirectory,
    GrantEvent,
    GrantStatus,
    GrantUse,
    ManagementKey,
    OutboundApp,
    Project,
    TrustedIssuer,
    Webhook,
    WebhookDelivery,
)
from evergrant.db.grant import scope_key
from evergrant.settings import Settings

PEOPLE = (
    "ada.lindholm",
    "grace.osei",
    "linus.varga",
    "m.okafor",
    "yuki.tanaka",
    "s.lindqvist",
    "user_2mQx81",
    "b.romero",
    "priya.nair",
    "tomasz.w",
    "chen.wei",
    "f.dubois",
    "oluwaseun",
    "k.haddad",
    "ines.costa",
    "8d0f3c52-6c1e-4f7a-9a6d-2f1c4be7a913",
)
ODD_PEOPLE = ("x" * 64, "ليلى-العلي", "zoë🌻")
"""Ids that no page may break on."""
TENANTS = ("", "", "", "lovelace", "northwind", "contoso-uk")

APPS: tuple[dict[str, Any], ...] = (
    {
        "id": "google-contacts",
        "template_id": "google",
        "name": "Google Contacts",
        "scopes": {
            "openid": "Know which Google account this is",
            "https://www.googleapis.com/auth/contacts.readonly": "See your contacts",
        },
    },
    {
        "id": "google-calendar",
        "template_id": "google",
        "name": "Google Calendar",
        "scopes": {
            "openid": "Know which Google account this is",
            "https://www.googleapis.com/auth/calendar.events": "See and change your events",
        },
    },
    {
        "id": "outlook-mail",
        "template_id": "microsoft",
        "name": "Outlook Mail",
        "scopes": {"Mail.Read": "Read your mail", "offline_access": "Keep this access"},
    },
    {
        "id": "salesforce",
        "template_id": "salesforce",
        "name": "Salesforce",
        "scopes": {"api": "Use the API for you", "refresh_token": "Keep this access"},
    },
    {
        "id": "hubspot",
        "template_id": "hubspot",
        "name": "HubSpot",
        "scopes": {"crm.objects.contacts.read": "See contacts", "oauth": ""},
    },
    {
        "id": "xero",
        "template_id": "xero",
        "name": "Xero",
        "scopes": {"accounting.transactions.read": "See transactions", "offline_access": "Keep this access"},
    },
    {
        "id": "slack",
        "template_id": "slack",
        "name": "Slack",
        "scopes": {"chat:write": "Send messages as the app", "channels:read": "See public channels"},
    },
    {"id": "notion", "template_id": "notion", "name": "Notion", "scopes": {}},
    {"id": "openai", "template_id": "openai", "name": "OpenAI", "scopes": {}, "app_type": "apikey"},
)
SESSION_ID = "5e55ion000000000000001"
"""An agent session that goes on."""
APPROVAL_ID = "Appr0va1000000000000a1"
"""An agent's request that waits for somebody to decide."""
STORY_ID = "5707e000000000000000000000000001"
"""The connection that has a past."""
TEST_ID = "test000001"
"""The test connection that did not come back."""
WEIGHTS = (7, 4, 6, 5, 5, 4, 3, 2, 2)


async def build_world(settings: Settings, *, now: datetime, grants: int = 60) -> InitResult:
    """Fill an empty installation, and return its project and first key."""
    made = await initialise(
        settings, project_name="Acme Assistant", redirect_origins=["https://assistant.acme.example"]
    )
    async with open_broker(settings) as broker:
        await add_approvals(broker, made.project_id, _approvals(now))
    async with open_broker(settings) as broker, broker.database.write() as session:
        (await session.get_one(Project, made.project_id)).start_dismissed_at = now - timedelta(days=29)
        _add_apps(session, made.project_id, now)
        await session.flush()
        _add_grants(session, made.project_id, now, grants)
        _add_access(session, made.project_id, now)
        _add_sessions(session, made.project_id, now)
        _add_webhook(session, made.project_id, now)
        await session.flush()
        _add_deliveries(session, made.project_id, now)
        _add_story(session, made.project_id, now)
        _add_test(session, made.project_id, now)
        _add_calls(session, made.project_id, now)
        await session.flush()
        await session.execute(insert(Activity), list(_activity(made.project_id, now)))
        await _add_records(session, made.project_id, now)
    return made


def _add_calls(session: AsyncSession, project_id: str, now: datetime) -> None:
    """Add what agents have done: one that reads and writes, one that was refused, one whose process died."""
    for n in range(45):
        app, user = APPS[n % 3]["id"], PEOPLE[n % 4]
        agent = ("inbox-helper", "crm-sync", "")[n % 3]
        status, source, code = ((200, "provider", ""), (201, "provider", ""), (403, "evergrant", "E011006"))[n % 3]
        if n % 10 == 3:
            status, source, code = 0, "", ""
        elif n % 10 == 7:
            status, source, code = 422, "provider", ""
        kind = ("call", "mcp", "fetch", "call")[n % 4]
        if kind == "fetch":
            status, source = (403 if code else 200), "evergrant"
        session.add(
            CallRecord(
                project_id=project_id,
                id=f"{n:022d}",
                at=now - timedelta(minutes=3 * n),
                kind=kind,
                app_id=app,
                user_id=user,
                actor=f"session:{n % 2:022d}" if agent else f"user:{user}",
                agent=agent,
                act=[agent] if agent else [],
                session_id=f"{n % 2:022d}" if agent else "",
                method="" if kind == "fetch" else ("GET", "POST")[n % 2],
                path="" if kind == "fetch" else f"/v1/people/{n}/connections" + "/emailAddresses" * (n % 5),
                status=status,
                source=source,
                code=code,
                ms=87 + 31 * n,
                attempts=1,
                batch="" if n == 3 else f"b{n // 10}",
            )
        )


async def add_approvals(broker: Broker, project_id: str, asked: Iterable[Mapping[str, Any]]) -> None:
    """Add requests that wanted a yes: columns of `Approval`, with `target` and `body` as what is sealed there."""
    for one in asked:
        sealed = {"ticket": one["id"], "target": one["target"], "body": one.get("body", "")}
        row = Approval(
            project_id=project_id,
            **dict.fromkeys(
                {"tenant_id", "base", "agent_id", "session_id"} - one.keys(), ""
            ),  # what the seals are bound to
            ticket_digest=hashlib.sha256(f"{project_id} {one['id']}".encode()).digest(),
            request_digest=b"0" * 32,
            expires_at=one["created_at"] + timedelta(minutes=10),
            body_bytes=len(sealed["body"]),
            **{name: value for name, value in one.items() if name not in sealed},
        )
        sealer = await broker.vault.reserve(project_id, seals=len(sealed))
        for name, text in sealed.items():
            setattr(row, name, sealer.seal(slot_in("approvals", row, name), SecretStr(text)))
        async with broker.database.write() as session:
            session.add(row)


def _approvals(now: datetime) -> Iterator[dict[str, Any]]:
    """Yield requests of agents: one that waits, and one of each thing that can become of it."""
    decided: dict[str, Any] = {"decided_at": now - timedelta(minutes=50), "decided_by": "key:agentsprod01"}
    for n, (status, minutes, more) in enumerate(
        (
            ("pending", 2, {}),
            ("used", 52, {**decided, "used_at": now - timedelta(minutes=49)}),
            ("refused", 54, {**decided, "decision_reason": "Not this contact."}),
            ("approved", 55, decided),
        )
    ):
        yield {
            "id": APPROVAL_ID if n == 0 else f"{n:022d}",
            "app_id": APPS[n]["id"],
            "user_id": PEOPLE[n],
            "agent_id": "mail-helper",
            "agent_name": "Mail helper" if n % 2 == 0 else "",
            "session_id": SESSION_ID,
            "actor": f"session:{SESSION_ID}",
            "method": ("POST", "DELETE")[n % 2],
            "target": f"/v1/people:createContact?n={n}",
            "content_type": "application/json",
            "body": '{"names": [{"givenName": "Barbara", "familyName": "Imaginary"}]}',
            "reason": ("session", "policy000001")[n % 2],
            "status": status,
            "created_at": now - timedelta(minutes=minutes),
            **more,
        }


def _add_apps(session: AsyncSession, project_id: str, now: datetime) -> None:
    for n, one in enumerate(APPS):
        at = now - timedelta(days=30 - n)
        refused = one["id"] == "slack"
        host = f"https://login.{one['template_id']}.example"
        session.add(
            OutboundApp(
                project_id=project_id,
                id=one["id"],
                name=one["name"],
                description=f"Lets Acme Assistant work with your {one['name']} account.",
                app_type=one.get("app_type", "oauth"),
                template_id=one["template_id"],
                client_id=f"acme-{one['id']}-407408718192",
                client_secret=Sealed(b"not for opening"),
                authorization_url=f"{host}/authorize",
                token_url=f"{host}/token",
                default_scopes=list(one["scopes"]),
                scope_descriptions={value: words for value, words in one["scopes"].items() if words},
                callback_id=hashlib.sha256(f"{project_id} {one['id']}".encode()).hexdigest()[:22],
                unhealthy_since=now - timedelta(minutes=52) if refused else None,
                unhealthy_reason="invalid_client: Bad client secret" if refused else "",
                created_at=at,
                updated_at=at,
            )
        )


def _add_grants(session: AsyncSession, project_id: str, now: datetime, how_many: int) -> None:
    chance = random.Random(7)
    people = [*PEOPLE, *ODD_PEOPLE]
    for n in range(how_many):
        app = chance.choices(APPS, WEIGHTS)[0]
        user = people[n % len(people)]
        tenant = chance.choice(TENANTS)
        connected = now - timedelta(minutes=37 * n + chance.randrange(30), days=n // 9)
        _add_grant(session, project_id, app, user, tenant, n, connected, now, chance)


def _add_grant(
    session: AsyncSession,
    project_id: str,
    app: dict[str, Any],
    user: str,
    tenant: str,
    n: int,
    connected: datetime,
    now: datetime,
    chance: random.Random,
    grant_id: str = "",
) -> None:
    grant_id = grant_id or f"{chance.getrandbits(128):032x}"
    is_key = app.get("app_type") == "apikey"
    status, error = GrantStatus.ACTIVE, ""
    refreshed: datetime | None = now - timedelta(seconds=chance.randrange(40, 2900))
    expires: datetime | None = (refreshed or now) + timedelta(hours=1)
    if n % 11 == 3 and not is_key and app["id"] != "slack":
        status, error = GrantStatus.REAUTHORIZATION_REQUIRED, "invalid_grant: Token has been expired or revoked."
        refreshed = now - timedelta(days=2, minutes=n)
        expires = refreshed + timedelta(hours=1)
    elif n % 17 == 8 and not is_key:
        error = "HTTP 503 from the provider"
    elif n % 29 == 12:
        status, refreshed = GrantStatus.PENDING, None
    if is_key or app["id"] == "notion":
        expires = refreshed = None
    scopes = list(app["scopes"])
    session.add(
        Grant(
            project_id=project_id,
            id=grant_id,
            app_id=app["id"],
            user_id=user,
            tenant_id=tenant,
            scope_key=scope_key(scopes),
            scopes=scopes,
            requested_scopes=scopes,
            details={"email": f"{user.split('@')[0][:20]}@acme.example"} if n % 3 == 0 else {},
            status=status,
            token_sub="" if is_key else str(chance.randrange(10**20, 10**21)),
            consented_at=connected,
            access_token=Sealed(b"not for opening"),
            access_token_type="apikey" if is_key else "Bearer",
            refresh_token=None if is_key or app["id"] == "notion" else Sealed(b"not for opening"),
            expires_at=expires,
            fresh_until=expires,
            last_refresh_time=refreshed,
            last_refresh_error=error,
            refresh_failures=3 if error else 0,
            next_refresh_at=None,
        )
    )
    session.add(
        GrantDirectory(
            project_id=project_id,
            grant_id=grant_id,
            app_id=app["id"],
            user_id=user,
            tenant_id=tenant,
            token_sub="",
            consented_at=connected,
        )
    )
    if n % 4:
        session.add(GrantUse(project_id=project_id, grant_id=grant_id, fetched_at=now - timedelta(hours=n)))


def _add_access(session: AsyncSession, project_id: str, now: datetime) -> None:
    for key_id, name, permissions, used, limits in (
        ("agentsprod01", "agents-prod", ["tokens:fetch", "connect"], timedelta(minutes=1), {}),
        ("nightlysync1", "nightly-sync", ["tokens:fetch"], timedelta(hours=9), {"app_ids": ["salesforce", "hubspot"]}),
        (
            "readonly0001",
            "dashboard",
            ["apps:read", "connections:read"],
            timedelta(days=3),
            {"allowed_cidrs": ["203.0.113.0/24"]},
        ),
        ("oldkey000001", "web-backend-2025", ["connect"], timedelta(days=61), {"disabled": True}),
    ):
        session.add(
            ManagementKey(
                project_id=project_id,
                id=key_id,
                name=name,
                digest=hashlib.sha256(key_id.encode()).digest(),
                permissions=sorted(permissions),
                last_used_at=now - used,
                last_used_address="203.0.113.24",
                created_at=now - timedelta(days=90),
                **limits,
            )
        )
    session.add(
        TrustedIssuer(
            project_id=project_id,
            id="issuer000001",
            issuer="https://login.acme.example",
            jwks_url="https://login.acme.example/jwks.json",
            audience="acme-assistant",
            tenant_claim="org_id",
            last_kid="2026-10",
            last_seen_at=now - timedelta(minutes=2),
            created_at=now - timedelta(days=80),
        )
    )


def _add_sessions(session: AsyncSession, project_id: str, now: datetime) -> None:
    made: tuple[tuple[str, str, dict[str, Any]], ...] = (
        (SESSION_ID, PEOPLE[0], {"max_calls": 200, "calls": 12}),
        ("5e55ion000000000000002", PEOPLE[1], {"revoked_at": now - timedelta(minutes=3)}),
        ("5e55ion000000000000003", ODD_PEOPLE[0], {"expires_at": now - timedelta(hours=2)}),
    )
    for n, (session_id, user, state) in enumerate(made):
        app = SessionApp(app_id=APPS[n]["id"], access="write" if n else "read", approve="writes" if n else "never")
        usual: dict[str, Any] = {"expires_at": now + timedelta(minutes=9), "agent_name": "Mail helper" if n else ""}
        session.add(
            AgentSession(
                project_id=project_id,
                id=session_id,
                digest=hashlib.sha256(session_id.encode()).digest(),
                user_id=user,
                agent_id="mail-helper",
                apps=[app.wire()],
                may_connect=n == 0,
                may_fetch=False,
                key_id="agentsprod01",
                made_by="key:agentsprod01",
                created_at=now - timedelta(minutes=6, hours=3 * n),
                **(usual | state),
            )
        )


def _add_webhook(session: AsyncSession, project_id: str, now: datetime) -> None:
    session.add(
        Webhook(
            project_id=project_id,
            id="webhook00001",
            url="https://api.acme.example/hooks/evergrant",
            secret=Sealed(b"not for opening"),
            failing_since=now - timedelta(minutes=84),
            created_at=now - timedelta(days=60),
        )
    )
    for app, n in zip(APPS, (12_840, 4_031, 11_302, 9_118, 8_455, 2_017, 1_204, 917, 3_276), strict=True):
        session.add(GrantCount(project_id=project_id, app_id=app["id"], n=n, counted_at=now - timedelta(minutes=2)))


def _activity(project_id: str, now: datetime) -> Iterator[dict[str, Any]]:
    """Yield a month of counts: the last day by the hour, the days before it as one hour each."""
    chance = random.Random(11)
    hour = now.replace(minute=0, second=0, microsecond=0)
    starts = [hour - timedelta(hours=n) for n in range(24)] + [hour - timedelta(days=n) for n in range(2, 31)]

    def row(start: datetime, app: str, counter: str, n: int, ms: int = 0) -> dict[str, Any]:
        of = {"project_id": project_id, "hour": start, "app_id": app, "counter": counter, "n": n}
        return {**of, "ms_sum": n * ms, "ms_max": ms * 4}

    for number, start in enumerate(starts):
        times = 1 if number < 24 else 22
        if number not in (6, 7):  # two hours without a refresher
            yield {**row(start, "", "refresher", 60), "ms_max": 3_540_000 if number else now.minute * 60_000}
        yield row(start, "", "webhook:webhook00001:ok", 40 * times, 90)
        yield row(start, "", "issuer:issuer000001:accepted", 50 * times)
        yield row(start, "", "issuer:issuer000001:refused", int(number == 2))
        for app, weight in zip(APPS, WEIGHTS, strict=True):
            busy = times * weight * (20 + int(12 * max(0, 1 - abs(start.hour - 14.5) / 7)) + chance.randrange(4))
            yield row(start, app["id"], "fetch:answered:agentsprod01", busy * 7, 4)
            yield row(start, app["id"], "fetch:answered:nightlysync1", busy if start.hour < 6 else 0, 3)
            yield row(start, app["id"], "fetch:refused:agentsprod01", busy // 90)
            yield row(start, app["id"], "connect:started", times * weight // 2)
            yield row(start, app["id"], "connect:finished", times * weight // 3)
            yield row(start, app["id"], "connect:cancelled", times * weight // 7)
            yield row(start, app["id"], "connect:failed:invalid_scope", int(number == 3))
            if app.get("app_type") == "apikey" or number in (6, 7):
                continue
            away = app["id"] == "salesforce" and 12 <= number <= 14
            yield row(start, app["id"], "refresh:ok", busy)
            yield row(start, app["id"], "refresh:retried", busy // 3 if away else busy // 120)
            yield row(start, app["id"], "refresh:ended", chance.randrange(2))
            slow = {"xero": ("2500", 1840), "salesforce": ("1000", 912)}.get(app["id"], ("250", 148))
            yield row(start, app["id"], f"call:{slow[0]}", busy, slow[1])


async def _add_records(session: AsyncSession, project_id: str, now: datetime) -> None:
    told = clock.now
    try:
        for minutes, action, app_id, user_id, who, data in (
            (214, "policy.created", "google-contacts", "", "operator:noor@acme.example", {"policyId": "p1"}),
            (93, "app.updated", "hubspot", "", "operator:noor@acme.example", {"fields": ["scopes"]}),
            (84, "webhook.updated", "", "", "operator:noor@acme.example", {"webhookId": "webhook00001"}),
            (69, "key.used_from_new_address", "", "", "key:agentsprod01", {"keyId": "agentsprod01"}),
            (63, "grant.connected", "google-contacts", "ada.lindholm", "user:ada.lindholm", {"scopes": ["openid"]}),
            (56, "grant.reauthorization_required", "xero", "m.okafor", "evergrant", {"error": "invalid_grant"}),
            (31, "grant.connect_failed", "slack", "k.haddad", "user:k.haddad", {"err": "invalid_scope"}),
            (12, "token.deleted", "notion", "priya.nair", "key:agentsprod01", {"reason": "deleted"}),
        ):
            clock.now = partial(datetime.fromtimestamp, (now - timedelta(minutes=minutes)).timestamp(), UTC)
            address = "" if who == "evergrant" else "203.0.113.40"
            await record(
                session, project_id, action, app_id=app_id, user_id=user_id, data=data, who=Actor(who, address)
            )
    finally:
        clock.now = told


def _add_deliveries(session: AsyncSession, project_id: str, now: datetime) -> None:
    for n, (minutes, event_type, attempts, status, code) in enumerate(
        (
            (3, "grant.reauthorization_required", 1, "pending", 503),
            (17, "grant.connected", 3, "pending", 503),
            (56, "grant.reauthorization_required", 5, "pending", 503),
            (84, "app.unhealthy", 6, "pending", 503),
            (91, "grant.connected", 2, "delivered", 204),
            (140, "grant.deleted", 1, "delivered", 204),
            (205, "grant.connected", 1, "delivered", 204),
            (1490, "grant.connected", 9, "failed", 500),
        )
    ):
        at = now - timedelta(minutes=minutes)
        session.add(
            WebhookDelivery(
                project_id=project_id,
                id=first_message_id(at),
                webhook_id="webhook00001",
                event_type=event_type,
                payload=f'{{"type":"{event_type}","timestamp":"{at.isoformat()}","data":{{"appId":"xero"}}}}',
                status=status,
                attempts=attempts,
                next_attempt_at=now + timedelta(minutes=4 + n) if status == "pending" else None,
                last_attempt_at=at + timedelta(minutes=attempts),
                last_status_code=code,
                last_error="" if code == 204 else f"The receiver answered {code}.",
                created_at=at,
            )
        )


def _add_story(session: AsyncSession, project_id: str, now: datetime) -> None:
    """Add a connection with a past: its timeline shows what can happen to one."""
    xero = next(app for app in APPS if app["id"] == "xero")
    since, chance = now - timedelta(days=23), random.Random(5)
    _add_grant(session, project_id, xero, "m.okafor", "northwind", 3, since, now, chance, STORY_ID)
    agents, nightly = "key:agentsprod01", "key:nightlysync1"
    for n, (minutes, kind, times, who, data) in enumerate(
        (
            (23 * 1440, "connected", 1, "user:m.okafor", {"madeBy": agents, "from": "198.51.100.7", "scopes": 2}),
            (26 * 60, "fetched", 180, agents, {}),
            (25 * 60, "fetched", 32, nightly, {}),
            (14 * 60 + 57, "failed", 2, "", {"error": "HTTP 503 from the provider"}),
            (14 * 60 + 54, "refreshed", 1, "", {"why": "background", "ms": 1840, "rotated": True}),
            (124, "fetched", 41, agents, {}),
            (86, "refreshed", 1, "", {"why": "background", "ms": 1612, "rotated": True}),
            (56, "ended", 1, "", {"error": "invalid_grant: Token has been expired or revoked."}),
            (52, "fetch_refused", 3, agents, {"reason": "reauthorization_required"}),
        )
    ):
        session.add(
            GrantEvent(
                project_id=project_id,
                grant_id=STORY_ID,
                id=f"{n:032d}",
                at=now - timedelta(minutes=minutes),
                n=times,
                kind=kind,
                actor=who,
                data=data,
            )
        )


def _add_test(session: AsyncSession, project_id: str, now: datetime) -> None:
    """Add a test connection that the provider has kept: it shows its own error page, and sends nobody back."""
    started = now - timedelta(minutes=4)
    good = ("definition", "metadata", "endpoints", "client", "left")
    session.add(
        AppTest(
            project_id=project_id,
            app_id="google-contacts",
            id=TEST_ID,
            made_by="operator:noor@acme.example",
            steps=to_json(
                [
                    Step(StepName(name), StepState.GOOD, at=(started + timedelta(seconds=n)).isoformat())
                    for n, name in enumerate(good)
                ]
            ),
            started_at=started,
            left_at=started + timedelta(seconds=5),
        )
    )
