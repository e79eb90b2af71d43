"""How a user is sent to a link: as each client is able to, the best way first.

A modern client that opens links gets `input_required`, with a sealed state; it calls again by itself when its user has
answered. One of the handshake era gets the error -32042. Every other, and who minted the session may decide so for all,
gets the link as text, for the model to show.
"""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, Self

from mcp import types
from mcp.shared.exceptions import UrlElicitationRequiredError

from evergrant.broker.calls import tools
from evergrant.broker.runtime.broker import Broker
from evergrant.web.mcp.caller import Caller
from evergrant.web.mcp.client import Client
from evergrant.web.mcp.results import told
from evergrant.web.mcp.seals import opened, seal

ASKED_MINUTES = 10
"""So long an answer to a question counts."""
WAIT_SECONDS = 20.0
"""How long a call waits for a person who has accepted to be done."""
What = Literal["connect", "approve"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """What a person has to do in a browser before a call can be made."""

    what: What
    app_id: str
    id: str
    """Of the trip, or of the approval."""
    url: str = field(repr=False)
    reason: str

    @property
    def message(self) -> str:
        """Say it to the person."""
        if self.what == "approve":
            return f"A call of {self.app_id} needs your approval."
        again = "again " if self.reason != "not_connected" else ""
        return f"Connect {self.app_id} {again}so that this call can be made."


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One call of a tool, which may be the repetition of one that had to ask."""

    caller: Caller
    client: Client
    tool: str
    digest: str
    """SHA-256 of the arguments: a state is for the same call only."""
    until: datetime
    """When the state ends, however often it goes back and forth."""
    now: datetime
    rounds: int = 0
    asked: Missing | None = None
    """What was asked for before."""
    action: str = ""
    """What the person said to it: `accept`, `decline` or `cancel`; empty where a client only waits."""

    @classmethod
    async def begun(
        cls, broker: Broker, caller: Caller, client: Client, params: types.CallToolRequestParams, *, now: datetime
    ) -> Self:
        """Read a call, and the state that it brings back. One that is too old is a call that was never asked about.

        Raises:
            NotFound: the state was sealed for another principal, tool or arguments, or was altered.
        """
        text = json.dumps(params.arguments or {}, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()
        fresh = cls(
            caller=caller,
            client=client,
            tool=params.name,
            digest=digest,
            until=now + timedelta(minutes=ASKED_MINUTES),
            now=now,
        )
        if not params.request_state:
            return fresh
        state = await opened(
            broker, caller.principal, "state", params.request_state, now=now, bound=(params.name, digest)
        )
        if state is None:
            return fresh
        answer = (params.input_responses or {}).get(state["what"])
        return cls(
            caller=caller,
            client=client,
            tool=params.name,
            digest=digest,
            until=datetime.fromtimestamp(state["until"], now.tzinfo),
            now=now,
            rounds=state["round"] + 1,
            asked=Missing(what=state["what"], app_id=state["app"], id=state["id"], url="", reason=state["reason"]),
            action=str(getattr(answer, "action", "")),
        )

    @property
    def approval_id(self) -> str:
        """The approval that the call is to use; empty where none was asked for."""
        return self.asked.id if self.asked is not None and self.asked.what == "approve" else ""

    async def settle(self, broker: Broker) -> types.CallToolResult | types.InputRequiredResult | None:
        """Return what to answer a call that asked before; None where it can be made now."""
        asked = self.asked
        if asked is None:
            return None
        data = {"status": f"{asked.what}_refused", "app": asked.app_id}
        if self.action in ("decline", "cancel"):
            did = "declined" if self.action == "decline" else "closed the request"
            return told(f"The user {did}: {asked.app_id} was not called. Do not ask again unasked.", data)
        project_id = self.caller.principal.project_id
        wait = tools.wait_for_trip if asked.what == "connect" else tools.wait_for_approval
        state = await wait(broker, project_id, asked.id, seconds=WAIT_SECONDS)
        if state == "failed":
            what = "The connection did not come about" if asked.what == "connect" else "The call was not approved"
            return told(f"{what}: {asked.app_id} was not called.", data | {"status": f"{asked.what}_failed"})
        return await self._still_open(broker, asked) if state == "open" else None

    async def ask(self, broker: Broker, missing: Missing) -> types.CallToolResult | types.InputRequiredResult:
        """Send the user to a link.

        Raises:
            UrlElicitationRequiredError: this is how clients of the handshake era are told.
        """
        limits = self.caller.principal.session
        if not self.client.opens_links or (limits is not None and limits.elicitation == "link"):
            return _as_text(missing)
        if not self.client.is_modern:
            link = types.ElicitRequestURLParams(message=missing.message, url=missing.url, elicitation_id=missing.id)
            raise UrlElicitationRequiredError([link], missing.message)
        link = types.ElicitRequestURLParams(message=missing.message, url=missing.url)
        return types.InputRequiredResult(
            input_requests={missing.what: types.ElicitRequest(params=link)},
            request_state=await self._sealed(broker, missing),
        )

    async def _still_open(self, broker: Broker, asked: Missing) -> types.InputRequiredResult:
        """Let the client come again without asking its user again."""
        return types.InputRequiredResult(request_state=await self._sealed(broker, asked))

    async def _sealed(self, broker: Broker, missing: Missing) -> str:
        said: dict[str, Any] = {
            "what": missing.what,
            "app": missing.app_id,
            "id": missing.id,
            "reason": missing.reason,
            "round": self.rounds,
        }
        return await seal(
            broker, self.caller.principal, "state", said, until=self.until, bound=(self.tool, self.digest)
        )


def _as_text(missing: Missing) -> types.CallToolResult:
    url = "connect_url" if missing.what == "connect" else "approve_url"
    status = "connection_required" if missing.what == "connect" else "approval_required"
    text = f"Show the user this link, then call again: {missing.url}\n{missing.message}"
    return told(text, {"status": status, url: missing.url, "app": missing.app_id, "reason": missing.reason})
