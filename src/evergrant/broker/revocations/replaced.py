"""What is revoked when a new consent takes the place of earlier ones: as a rule nothing, for the person goes on.

An earlier one is revoked where another account stood behind it, and where the provider revokes each consent by itself.
"""

import logging
from datetime import datetime

from sqlalchemy import select

from evergrant.broker.apps.quirks import can_revoke, revokes_singly
from evergrant.broker.grants.grants import owner_of, token_slot
from evergrant.broker.grants.replacing import Replacement, is_replaced_by
from evergrant.broker.revocations.revocation import RevocationReason, prepare_revocations
from evergrant.broker.runtime.broker import Broker
from evergrant.db import Grant, OutboundApp
from evergrant.errors import CannotOpenSealed, Unavailable

log = logging.getLogger(__name__)


async def prepare_replacement(
    broker: Broker, app: OutboundApp, new: Grant, *, uploaded: bool = False, now: datetime
) -> Replacement | None:
    """Read what `new` will replace, and make the revocations for it; None where nothing is to be revoked.

    Not inside a transaction: sealing may write. `new` need not be stored yet. What is `uploaded` may come from the very
    consent that it replaces, so that it takes another account to revoke that one. Trouble with an old token keeps no
    new one out: it is logged, and the old one is not revoked.

    Raises:
        Unavailable: the database is away.
    """
    singly = revokes_singly(broker, app) and not uploaded
    if not can_revoke(broker, app) or not (singly or new.token_sub):
        return None
    try:
        return await _prepare(broker, app, new, singly=singly, now=now)
    except Unavailable:
        raise
    except Exception:
        log.exception("replaced connections are not revoked", extra={"grant": new.id, "app": app.id})
        return None


async def _prepare(broker: Broker, app: OutboundApp, new: Grant, *, singly: bool, now: datetime) -> Replacement:
    async with broker.database.read() as session:
        earlier = list(await session.scalars(select(Grant).where(*is_replaced_by(new))))
    going = [one for one in earlier if singly or (one.token_sub and one.token_sub != new.token_sub)]
    if going:
        kept = await _tokens_of(broker, new)
        going = [one for one in going if not kept & await _tokens_of(broker, one)]
    besides = [one.id for one in earlier]
    rows = await prepare_revocations(broker, app, going, reason=RevocationReason.REPLACED, besides=besides, now=now)
    by_grant = {row.grant_id: row for row in rows}
    return Replacement({(one.id, one.token_version): by_grant.get(one.id) for one in earlier})


async def _tokens_of(broker: Broker, grant: Grant) -> set[str]:
    """Return a grant's tokens: some providers give the same one again."""
    tokens: set[str] = set()
    for column, sealed in (("access_token", grant.access_token), ("refresh_token", grant.refresh_token)):
        if sealed is not None:
            try:
                opened = await broker.vault.open(token_slot(owner_of(grant), grant.id, column), sealed)
            except CannotOpenSealed:
                continue
            tokens.add(opened.get_secret_value())
    return tokens
