"""Steps for trusted issuers. An issuer that changes is replaced by another at the same moment."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from evergrant.broker.apply.same_secret import is_the_same
from evergrant.broker.apply.step import PlanStep, all_new, change
from evergrant.broker.apply.wanted import WantedThing
from evergrant.broker.projects.trusted_issuers import (
    create_issuer,
    delete_issuer,
    login_secret_slot,
    open_login_secret,
)
from evergrant.broker.runtime.broker import Broker
from evergrant.db import TrustedIssuer
from evergrant.errors import MissingArgument

_KEPT = (
    *("issuer", "audience", "jwks_url", "user_claim", "tenant_claim", "machines_without_user", "mcp"),
    "login_client_id",
)
_SECRET = "login_client_secret"


def issuer_meant(entry: WantedThing, stored: Sequence[TrustedIssuer]) -> TrustedIssuer | None:
    """Return the issuer that an entry is about.

    Where the keys are discovered, the issuer is stored as its metadata spells it, which may differ by a slash.
    """
    wanted = entry.given["issuer"]
    for row in stored:
        if row.issuer == wanted:
            return row
    if entry.given.get("jwks_url"):
        return None
    return next((row for row in stored if row.issuer.rstrip("/") == wanted.rstrip("/")), None)


async def issuer_step(
    broker: Broker, project_id: str, entry: WantedThing, stored: TrustedIssuer | None
) -> PlanStep | None:
    """Return what makes an issuer what is wanted; None when it is.

    Raises:
        MissingArgument: a new one has no audience.
    """
    given = dict(entry.given)
    if stored is None:
        if not given.get("audience"):
            raise MissingArgument.of(("audience", "is required"))

        async def create(now: datetime) -> str:
            await create_issuer(broker, project_id, **given, now=now)
            return ""

        changes = all_new(given, but=["issuer"])
        return PlanStep(
            act="create", kind="trustedIssuer", name=given["issuer"], changes=changes, where=entry.where, do=create
        )
    # An empty address of keys means that the issuer's metadata says it, as it did when the issuer was made.
    looked_at = [name for name in _KEPT if name in given and name != "issuer" and (name != "jwks_url" or given[name])]
    changes = [
        change(name, given[name], getattr(stored, name)) for name in looked_at if given[name] != getattr(stored, name)
    ]
    place, sealed = login_secret_slot(stored), stored.login_client_secret
    if _SECRET in given and not await is_the_same(broker, place, sealed, given[_SECRET]):
        changes.append(change(_SECRET, None))
    if not changes:
        return None
    whole: dict[str, Any] = {name: getattr(stored, name) for name in _KEPT}
    whole |= {name: given[name] for name in (*looked_at, _SECRET) if name in given}
    if _SECRET not in given and whole["login_client_id"] == stored.login_client_id:
        whole[_SECRET] = await open_login_secret(broker, stored)

    async def replace(now: datetime) -> str:
        await create_issuer(broker, project_id, **whole, replaced_id=stored.id, now=now)
        return ""

    return PlanStep(
        act="update", kind="trustedIssuer", name=stored.issuer, changes=changes, where=entry.where, do=replace
    )


def issuer_deletion(broker: Broker, stored: TrustedIssuer) -> PlanStep:
    """Return the step that trusts an issuer no longer."""

    async def delete(_now: datetime) -> str:
        await delete_issuer(broker, stored.project_id, stored.id)
        return ""

    note = "nobody gets in any more with a token of it"
    return PlanStep(act="delete", kind="trustedIssuer", name=stored.issuer, note=note, do=delete)
