"""The ledger of a fault: what became of every grant, by the provider's memory and by the database."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields

from sqlalchemy import select

from evergrant.broker.grants.grants import owner_of, token_slot
from evergrant.broker.runtime.broker import open_broker
from evergrant.db import Grant
from evergrant.practice.state import Family, ProviderState
from evergrant.settings import Settings
from tests.infra.rows import rows


@dataclass(frozen=True, slots=True)
class Ledger:
    """What a fault did. At the end `reuse`, `revoked` and `lost` are 0, unless answers were lost on the wire."""

    grants: int
    """Grants that the fault was about."""
    landed: int
    """Refreshes that were stored."""
    calls: int
    """Refreshes that reached the provider."""
    reuse: int = 0
    """Families that the provider revoked because a spent refresh token came back."""
    revoked: int = 0
    """Families that are revoked, for whatever reason."""
    lost: int = 0
    """Grants whose newest refresh token we do not have, or that died although nobody ended them."""
    in_doubt: int = 0
    """Grants whose answer was lost on the wire, by a kill or by the provider: no broker could have it."""
    fresh: int = 0
    """Grants whose token, fetched at the end, the provider's protected resource lets in."""

    @classmethod
    def clean(cls, grants: int, *, calls: int | None = None, landed: int | None = None) -> "Ledger":
        """Return what must be in the books when nothing was lost: by default one call and one refresh per grant."""
        return cls(
            grants,
            landed=grants if landed is None else landed,
            calls=grants if calls is None else calls,
            fresh=grants,
        )

    @classmethod
    def headings(cls) -> list[str]:
        """Return the names of the columns, as they are printed."""
        return [field.name.replace("_", " ") for field in fields(cls)]

    def columns(self) -> list[int]:
        """Return the numbers, in the order of the headings."""
        return [getattr(self, field.name) for field in fields(self)]


@dataclass(frozen=True, slots=True)
class Row:
    """A grant in the database."""

    status: str
    version: int
    lease_owner: str | None


def rows_of(settings: Settings) -> dict[str, Row]:
    """Read every user's grant from the database."""
    return {
        row["user_id"]: Row(row["status"], row["token_version"], row["lease_owner"]) for row in rows(settings, "grants")
    }


def refresh_tokens_of(settings: Settings) -> dict[str, str]:
    """Open every user's refresh token, as it is in the database."""

    async def read() -> dict[str, str]:
        async with open_broker(settings) as broker:
            async with broker.database.read() as session:
                grants = list(await session.scalars(select(Grant)))
            tokens = {}
            for grant in grants:
                assert grant.refresh_token is not None
                slot = token_slot(owner_of(grant), grant.id, "refresh_token")
                tokens[grant.user_id] = (await broker.vault.open(slot, grant.refresh_token)).get_secret_value()
            return tokens

    return asyncio.run(read())


def take_ledger(
    settings: Settings,
    state: ProviderState,
    families: Mapping[str, Family],
    fetched: Mapping[str, bool],
    *,
    in_doubt: Collection[str] = (),
) -> Ledger:
    """Close the books.

    `fetched` tells of every user whether the token that evergrant answers now lets into the protected resource.
    `in_doubt` are the users whose answer was lost on the wire: their death is not counted as a loss.
    """
    stored, ours = rows_of(settings), refresh_tokens_of(settings)
    ids = {family.id for family in families.values()}

    def is_lost(user: str) -> bool:
        family = families[user]
        if family.client_id in state.machines:  # its credentials stay
            return stored[user].status != "active" or family.client_id not in ours[user]
        issued = [text for text, token in state.refresh_tokens.items() if token.family is family]
        return stored[user].status != "active" or family.revoked or ours[user] != issued[-1]

    return Ledger(
        grants=len(families),
        landed=sum(stored[user].version - 1 for user in families),
        calls=sum(n for presented, n in state.presented.items() if (of := state.family_of(presented)) and of.id in ids),
        reuse=sum(family.revoked_because == "refresh token reuse" for family in families.values()),
        revoked=sum(family.revoked for family in families.values()),
        lost=sum(is_lost(user) for user in families if user not in in_doubt),
        in_doubt=len(in_doubt),
        fresh=sum(fetched.values()),
    )
