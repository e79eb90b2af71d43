"""Agent sessions on the wire."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from evergrant.broker.access.session_list import SessionStatus, status_of_session
from evergrant.broker.access.session_minting import DEFAULT_SECONDS, MOST_APPS, MOST_EACH, MOST_SECONDS
from evergrant.broker.calls.redirects import proxy_url
from evergrant.broker.runtime.agent_limits import SessionApp
from evergrant.db import AgentSession
from evergrant.web.api.wire import (
    AppId,
    Flag,
    OptionalId,
    OwnerId,
    StrictWireModel,
    Text,
    WireModel,
    epoch,
    example,
)
from evergrant.web.mcp_address import resource_url

EXAMPLE_ID = "7Qm2cXw9Rk4tZp1sVb6nLd"
EXAMPLE_KEY = "evs_P2nq5Jx8Vb_7Qm2cXw9Rk4tZp1sVb6nLd_..."
SessionId = Annotated[Text, Field(min_length=1, max_length=22, pattern=r"^[0-9A-Za-z]+$")]
Access = Literal["read", "write"]
Approve = Literal["never", "writes", "always"]


class AppOfSession(StrictWireModel):
    """What a session may do with one app. It narrows what policies and the connection allow, and widens nothing."""

    app_id: AppId
    scopes: list[Annotated[Text, Field(max_length=2_000)]] = Field(
        default_factory=list, max_length=500, description="The connection has all of these; empty for any connection."
    )
    external_identifier: OptionalId | None = Field(
        default=None, description="The only connection, where the owner has several; left out for any."
    )
    access: Access = Field(default="read", description="`read`: only methods and calls that change nothing.")
    methods: list[Annotated[Text, Field(max_length=16)]] = Field(
        default_factory=list, max_length=MOST_EACH, description="Only these; empty for all that `access` lets be."
    )
    paths: list[Annotated[Text, Field(max_length=500)]] = Field(
        default_factory=list, max_length=MOST_EACH, description="Only these, written as in a policy; empty for all."
    )
    approve: Approve = Field(default="never", description="Which calls the owner approves, each by itself.")

    def read(self) -> SessionApp:
        """Return it as the broker has it."""
        return SessionApp(
            app_id=self.app_id,
            scopes=tuple(self.scopes),
            external_identifier=self.external_identifier,
            access=self.access,
            methods=tuple(self.methods),
            paths=tuple(self.paths),
            approve=self.approve,
        )


class Agent(StrictWireModel):
    """The agent that a session is for."""

    id: OwnerId = Field(description="By your own id for it: what policies, limits and the log know it by.")
    name: Annotated[Text, Field(max_length=200)] = Field(default="", description="What people are shown.")


class CreateSession(StrictWireModel):
    """A session to mint."""

    model_config = example(
        {
            "userId": "alice",
            "apps": [{"appId": "google-contacts", "access": "read"}],
            "agent": {"id": "mail-helper", "name": "Mail helper"},
            "ttlSeconds": 900,
        }
    )

    user_id: OptionalId = Field(default="", description="Whose connections. This or `tenantId` is required.")
    tenant_id: OptionalId = Field(default="", description="With `userId`, the user's within it; else the tenant's own.")
    apps: list[AppOfSession] = Field(min_length=1, max_length=MOST_APPS, description="The only apps.")
    connect: Flag = Field(default=False, description="The agent may begin connect trips. The key needs `connect`.")
    fetch: Flag = Field(
        default=False,
        description="The agent may have the tokens themselves. The key needs `tokens:fetch`, and each app `access: "
        "write` without further limits.",
    )
    agent: Agent
    ttl_seconds: int = Field(default=DEFAULT_SECONDS, ge=1, le=MOST_SECONDS, strict=True)
    max_calls: int | None = Field(
        default=None, ge=1, le=1_000_000_000, strict=True, description="How many calls; left out for any number."
    )
    permitted_ips: list[Annotated[Text, Field(max_length=64)]] = Field(
        default_factory=list,
        max_length=100,
        description="Addresses and networks that it works from, within those of the key; empty for the key's.",
    )
    elicitation: Literal["url", "link"] = Field(
        default="url",
        description="How an MCP client is asked to open a link: as the protocol has it, or in an answer's text.",
    )
    labels: dict[Annotated[Text, Field(min_length=1, max_length=64)], Annotated[Text, Field(max_length=255)]] = Field(
        default_factory=dict, max_length=20, description="Words of your own, kept with it."
    )


class NewSession(WireModel):
    """What an agent needs beside its key."""

    id: str
    expires_at: str = Field(description="Epoch seconds as text.")
    mcp_url: str = Field(description="The MCP server.")
    proxy_urls: dict[str, str] = Field(description="By app: the base URL to use instead of the provider's.")


class NewSessionAnswer(WireModel):
    """A session that was just minted."""

    model_config = example(
        {
            "session": {
                "id": EXAMPLE_ID,
                "expiresAt": "1741104414",
                "mcpUrl": "https://evergrant.example.com/mcp/P2nq5Jx8Vb",
                "proxyUrls": {"google-contacts": "https://evergrant.example.com/v1/proxy/google-contacts"},
            },
            "key": EXAMPLE_KEY,
        }
    )

    session: NewSession
    key: str = Field(description="The key itself: shown here and never again.")


class SessionBody(WireModel):
    """A session as it is stored: without its key."""

    id: str
    status: SessionStatus
    user_id: str
    tenant_id: str
    agent: Agent
    act: list[str] = Field(description="The chain of actors, outermost first, where it was exchanged for tokens.")
    apps: list[AppOfSession]
    connect: bool
    fetch: bool
    max_calls: int | None = None
    calls: int = Field(description="How many it has made; counted only with `maxCalls`.")
    permitted_ips: list[str]
    elicitation: Literal["url", "link"]
    labels: dict[str, str]
    created_by: str = Field(description="Who minted it, as the audit log has it.")
    created_time: str = Field(description="Epoch seconds as text.")
    expires_at: str = Field(description="Epoch seconds as text.")
    revoked_time: str = Field(description="Epoch seconds as text; empty where it was not.")


EXAMPLE_SESSION = {
    "id": EXAMPLE_ID,
    "status": "active",
    "userId": "alice",
    "tenantId": "",
    "agent": {"id": "mail-helper", "name": "Mail helper"},
    "act": [],
    "apps": [
        {
            "appId": "google-contacts",
            "scopes": [],
            "externalIdentifier": None,
            "access": "read",
            "methods": [],
            "paths": [],
            "approve": "never",
        }
    ],
    "connect": False,
    "fetch": False,
    "maxCalls": None,
    "calls": 0,
    "permittedIps": [],
    "elicitation": "url",
    "labels": {},
    "createdBy": "key:5yZ1cK8vQd3w",
    "createdTime": "1741103514",
    "expiresAt": "1741104414",
    "revokedTime": "",
}


class SessionsAnswer(WireModel):
    """A page of sessions, the latest first."""

    model_config = example({"sessions": [EXAMPLE_SESSION], "nextCursor": ""})

    sessions: list[SessionBody]
    next_cursor: str = Field(description="`cursor` of the next page; empty on the last.")


def session_body(row: AgentSession, *, now: datetime) -> SessionBody:
    """Write a session for the wire."""
    return SessionBody(
        id=row.id,
        status=status_of_session(row, now=now),
        user_id=row.user_id,
        tenant_id=row.tenant_id,
        agent=Agent(id=row.agent_id, name=row.agent_name),
        act=row.act,
        apps=[AppOfSession.model_validate(app) for app in row.apps],
        connect=row.may_connect,
        fetch=row.may_fetch,
        max_calls=row.max_calls,
        calls=row.calls,
        permitted_ips=row.allowed_cidrs,
        elicitation="link" if row.elicitation == "link" else "url",
        labels=row.labels,
        created_by=row.made_by,
        created_time=epoch(row.created_at),
        expires_at=epoch(row.expires_at),
        revoked_time=epoch(row.revoked_at),
    )


def new_session(row: AgentSession, public_url: str) -> NewSession:
    """Write what an agent needs beside its key. `public_url` is evergrant's own."""
    return NewSession(
        id=row.id,
        expires_at=epoch(row.expires_at),
        mcp_url=resource_url(public_url, row.project_id),
        proxy_urls={app["appId"]: proxy_url(public_url, app["appId"]) for app in row.apps},
    )
