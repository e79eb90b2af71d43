"""A visit of an end user to their connected accounts, and who that is for the use cases of the house.

A visit may do what whoever asked for it may do, and that for its one user: the management key of a backend, a user with
a JWT, or an operator. So access policies, limits to apps and the end of a key hold for it as for their own calls.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from evergrant.broker.access.management_keys import authority_of
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.db import ManagementKey, PortalSession, Project
from evergrant.errors import NotFound, PermissionDenied

CONNECT, DISCONNECT = ACTS = ("connect", "disconnect")
IDLE = timedelta(minutes=15)
"""A visit during which nothing happened for so long is over."""


class VisitIsOver(NotFound):
    """This page was open for too long: it has to be opened again from the application."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One browser's visit, as it is now."""

    id: str
    project: Project
    owner: ResourceOwner
    user_label: str
    tenant_label: str
    allow: frozenset[str]
    scopes: Mapping[str, Sequence[str]]
    locale: str
    return_url: str
    principal: Principal
    is_over: bool

    @property
    def actor(self) -> str:
        """Who acts here, as the audit log writes it."""
        return f"user:{self.owner.user_id}"

    def may(self, act: str) -> bool:
        """Tell whether the visit is for this, too."""
        return act in self.allow

    def require(self, act: str) -> None:
        """Check that the visit is for this, and goes on.

        Raises:
            VisitIsOver: it does not.
            PermissionDenied: it is not for this.
        """
        if self.is_over:
            raise VisitIsOver
        if act not in self.allow:
            raise PermissionDenied(f"This page was opened without the right to {act}.")


def visit_of(
    row: PortalSession,
    project: Project,
    key: ManagementKey | None,
    *,
    is_trusted: bool,
    seen_at: datetime,
    now: datetime,
) -> Visit:
    """Return what a row says.

    `key` is the one that asked for the visit, where one did and is still there; `is_trusted` says whether a user's
    issuer still counts, where a user did.
    """
    principal, allow, ended = _acting(row, key, now=now)
    return Visit(
        id=row.id,
        project=project,
        owner=ResourceOwner(row.user_id, row.tenant_id),
        user_label=row.user_label,
        tenant_label=row.tenant_label,
        allow=allow,
        scopes=row.scopes,
        locale=row.locale,
        return_url=row.return_url,
        principal=principal,
        is_over=ended or not is_trusted or row.digest is None or row.expires_at <= now or now - seen_at > IDLE,
    )


def _acting(row: PortalSession, key: ManagementKey | None, *, now: datetime) -> tuple[Principal, frozenset[str], bool]:
    """Return who acts in a visit, what it may do, and whether the right to it has ended."""
    allow, app_ids, ended = frozenset(row.allow), frozenset(row.app_ids), False
    operator = "" if row.key_id or row.claims is not None else row.made_by.removeprefix("operator:")
    if row.key_id:
        ended = key is None or key.disabled or (key.expires_at is not None and key.expires_at <= now)
    if key is not None:
        authority = authority_of(key)
        if authority.app_ids:
            app_ids = app_ids & authority.app_ids if app_ids else authority.app_ids
            ended = ended or not app_ids
        if Permission.CONNECT not in authority.permissions:
            ended = True
        if Permission.TOKENS_WRITE not in authority.permissions:
            allow -= {DISCONNECT}
    principal = Principal(
        project_id=row.project_id,
        key_id=row.key_id,
        permissions=frozenset({Permission.CONNECT}),
        app_ids=app_ids,
        networks=(),
        expires_at=None,
        claims=row.claims,
        user_id=row.user_id if row.claims is not None else "",
        tenant_ids=frozenset({row.tenant_id} - {""}) if row.claims is not None else frozenset(),
        operator=operator,
    )
    return principal, allow, ended
