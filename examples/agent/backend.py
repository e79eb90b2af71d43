"""The backend of an application with an agent: it mints the session, and it alone holds a management key.

    EVERGRANT=http://127.0.0.1:8420 PROJECT_ID=... MANAGEMENT_KEY=... python examples/agent/backend.py

With `--yes`, the person is taken to approve.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "clients/python/src"))  # or: pip install evergrant-agents

from agent import Agent, Person, ScriptedModel, ToolCall
from evergrant_agents import App, ApprovalRequired, Client, ConnectionRequired, EvergrantError, create_session

EVERGRANT = os.environ["EVERGRANT"]
CREDENTIAL = f"{os.environ['PROJECT_ID']}:{os.environ['MANAGEMENT_KEY']}"
APP, USER, SCOPES = "practice", "alice", ("openid", "contacts")
CONTACT = {"name": "Barbara Imaginary", "email": "barbara@example.com"}
SCRIPT = (
    ToolCall("api_read", {"app": APP, "path": "/contacts"}),
    ToolCall("api_write", {"app": APP, "path": "/contacts", "json": CONTACT}),
    ToolCall("api_read", {"app": APP, "path": "/contacts"}),
)
MINUTES = 10


def main() -> None:
    """Let the agent work on one task for one user."""
    approve = _approve if "--yes" in sys.argv[1:] else _ask
    try:
        session = create_session(
            EVERGRANT,
            CREDENTIAL,
            user_id=USER,
            apps=[App(APP, access="write", approve="writes")],
            agent="assistant",
            agent_name="The example's assistant",
        )
    except EvergrantError as error:
        sys.exit(f"No session: {str(error).rstrip('.')}. Does the app '{APP}' exist? The guide's step 1 creates it.")
    print(f"session   {session.id} for {USER}: {', '.join(session.proxy_urls)}")
    with Client(EVERGRANT, session.key) as evergrant:
        agent = Agent(evergrant, Person(connect=_connect(evergrant), approve=approve), scopes=SCOPES)
        said = agent.run(ScriptedModel(SCRIPT), f"Add {CONTACT['name']} to my contacts.")
        print(f"agent     {said}")


def _connect(evergrant: Client) -> Callable[[ConnectionRequired], None]:
    def connect(missing: ConnectionRequired) -> None:
        # Who sits at this terminal is alice, says this backend: so it begins the trip itself. A session that was minted
        # with `connect=True` gets a link in `missing.url`, whose browser has to prove who it is.
        link = _post("app/connect", {"appId": APP, "userId": USER, "options": {"scopes": SCOPES}})["url"]
        print(f"person    not connected yet ({missing.code}). Open {link}", flush=True)
        until = time.monotonic() + MINUTES * 60
        while time.monotonic() < until:
            time.sleep(0.5)
            try:
                evergrant.request(APP, "GET", "/contacts", scopes=SCOPES)
            except ConnectionRequired:
                continue
            print("person    connected")
            return
        sys.exit("Nobody has connected.")

    return connect


def _ask(wanted: ApprovalRequired) -> None:
    # The person can also say so on evergrant's page, at `wanted.url`; here the backend asks for itself.
    if input(f"person    The agent wants to write (approval {wanted.approval_id}). Approve? [y/N] ") in ("y", "yes"):
        _approve(wanted)
    else:
        _post("approval/decide", {"id": wanted.approval_id, "decision": "refuse"})


def _approve(wanted: ApprovalRequired) -> None:
    _post("approval/decide", {"id": wanted.approval_id, "decision": "approve"})
    print(f"person    approved {wanted.approval_id}")


def _post(path: str, body: dict[str, Any]) -> dict[str, Any]:
    url = f"{EVERGRANT}/v1/mgmt/outbound/{path}"
    answer = httpx2.post(url, json=body, headers={"Authorization": f"Bearer {CREDENTIAL}"})
    answer.raise_for_status()
    told: dict[str, Any] = answer.json()
    return told


if __name__ == "__main__":
    main()
