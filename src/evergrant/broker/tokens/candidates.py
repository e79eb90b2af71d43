"""Which of an owner's connections answers a fetch, where not just the one that was asked for by its very scopes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import select

from evergrant.app_types import AppType
from evergrant.broker.apps.apps import load_app
from evergrant.broker.apps.quirks import scope_words
from evergrant.broker.apps.variables import known_values, template_of
from evergrant.broker.grants.granted_scopes import proofs_of
from evergrant.broker.runtime.broker import Broker
from evergrant.catalog.template import Template
from evergrant.db import Grant, GrantStatus, OutboundApp
from evergrant.db.grant_reader import GrantView, OwnerKey
from evergrant.errors import AppNotFound, ReauthorizationRequired, TokenNotFound
from evergrant.oauth2.scopes import ScopeWords

Scopes = Sequence[str] | None
"""What is wanted; None for the most recently consented connection, whatever its scopes."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """An owner's connections of an app, the latest consent first, and how the app's provider spells scopes."""

    app: OutboundApp
    template: Template | None
    words: ScopeWords
    grants: Sequence[Grant]

    def choose(self, scopes: Scopes) -> GrantView:
        """Return the connection that answers.

        Raises:
            TokenNotFound: there is none, or none has these scopes; `missingScopes` says what the nearest one lacks.
            ReauthorizationRequired: the one that had them is dead.
        """
        if not self.grants:
            raise TokenNotFound
        if (found := self.other_than((), scopes)) is not None:
            return found
        dead = next((grant for grant in self.grants if not self._missing(grant, scopes)), None)
        if dead is not None:
            error = dead.last_refresh_error
            raise ReauthorizationRequired(error or None, last_refresh_error=error, grant_id=dead.id)
        raise self._lacking(
            *min(((self._missing(grant, scopes), grant) for grant in self.grants), key=lambda m: len(m[0]))
        )

    def other_than(self, tried: Collection[str], scopes: Scopes) -> GrantView | None:
        """Return the smallest active connection that covers what is wanted; without scopes, the latest."""
        alive = [view for view in self.covering(scopes) if view.id not in tried]
        return min(alive, key=lambda view: len(view.scopes) if scopes else 0, default=None)

    def covering(self, scopes: Scopes) -> list[GrantView]:
        """Return the active connections that cover what is wanted."""
        return [
            GrantView.of(grant)
            for grant in self.grants
            if grant.status == GrantStatus.ACTIVE and not self._missing(grant, scopes)
        ]

    def require(self, view: GrantView, scopes: Scopes) -> GrantView:
        """Return the connection if it has the scopes that are wanted.

        Raises:
            TokenNotFound: it has not, or is gone.
        """
        grant = next((grant for grant in self.grants if grant.id == view.id), None)
        if grant is None:
            raise TokenNotFound
        if missing := self._missing(grant, scopes):
            raise self._lacking(missing, grant)
        return view

    def _missing(self, grant: Grant, scopes: Scopes) -> list[str]:
        if self.app.app_type != AppType.OAUTH and not grant.scopes:
            return []  # a key has no scopes, nor have credentials that were uploaded without: they answer whatever
        values = known_values(self.template, self.app.variables, grant.details)
        return replace(self.words, values=values).missing(scopes or (), grant.scopes, proofs_of(grant))

    def _lacking(self, scopes: Collection[str], grant: Grant) -> TokenNotFound:
        missing = sorted(scopes)
        details = {"missingScopes": missing}
        again = "Connect again" if AppType(self.app.app_type).is_consented else "Upload the credentials again"
        message = f"The connection lacks scopes: {', '.join(missing)}. {again} with all that you fetch by."
        if refused := sorted(set(missing) & set(grant.requested_scopes)):
            details["refusedScopes"] = refused
            message += f" The last consent was asked for {', '.join(refused)}, and the provider did not grant it."
        return TokenNotFound(message, details=details)


async def load_candidates(broker: Broker, owner: OwnerKey, *, of_every_account: bool = False) -> Candidates:
    """Read all that could answer; `of_every_account`, whichever their external identifiers.

    Raises:
        AppNotFound: there is no such app for this owner.
    """
    names = OwnerKey._fields[:-1] if of_every_account else OwnerKey._fields
    query = (
        select(Grant)
        .where(
            *(getattr(Grant, name) == getattr(owner, name) for name in names),
            Grant.status != GrantStatus.PENDING,
        )
        .order_by(Grant.consented_at.desc())
    )
    app = await load_app(broker, owner.project_id, owner.app_id)
    async with broker.database.read() as session:
        grants = list(await session.scalars(query))
    if not grants and app.tenant_id and app.tenant_id != owner.tenant_id:
        raise AppNotFound  # for this owner there is none
    return Candidates(app, template_of(broker, app), scope_words(broker, app), grants)
