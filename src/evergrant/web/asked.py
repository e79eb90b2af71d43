"""What is known of a request beside what it says: where it comes from, who asks, and what is left of their limit.

It is kept in the request's own state, where the middleware finds it for headers and log.
"""

from collections.abc import Hashable

from starlette.types import Scope

from evergrant.broker.audit.record import Actor, actor
from evergrant.broker.runtime.limits import RateLimit
from evergrant.networks import plain_address


def address_of(scope: Scope) -> str:
    """Return the caller's address, as far as proxies that are trusted tell; empty if that is none."""
    client = scope.get("client")
    return plain_address(client[0]) if client else ""


def note_actor(scope: Scope, who: Actor, project_id: str) -> None:
    """Tell the audit log and the access log who is asking."""
    actor.set(who)
    state = scope["state"]
    state["actor"], state["project"] = who.name, project_id


def note_left(scope: Scope, limit: RateLimit, caller: Hashable) -> None:
    """Let the answer's headers say what a caller has left."""
    if limit.limit:
        scope["state"]["left"] = limit.left(caller)
