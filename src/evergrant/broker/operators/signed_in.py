"""An operator who is signed in at the console, and who that is for each project."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from evergrant.broker.access.management_keys import authority_of
from evergrant.broker.operators.roles import ADMIN, ROLES, given_by
from evergrant.broker.runtime.authority import Authority
from evergrant.broker.runtime.principal import FETCHING, Principal
from evergrant.db import ConsoleSession, ManagementKey
from evergrant.errors import NotFound, SignInTooOld

RECENT = timedelta(minutes=15)
"""For what matters most, somebody must have signed in so lately."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """One browser's session."""

    session_id: str
    operator: str
    """Who it is, for people: an address, or how they came in."""
    way: str
    """`link`, `key` or `oidc`."""
    role: str
    """`viewer`, `operator` or `admin`; empty where a management key says what may be done."""
    project_id: str | None
    """The only project that may be seen; None for all."""
    authority: Authority
    withheld: frozenset[str]
    key_id: str
    signed_in_at: datetime
    seen_at: datetime
    expires_at: datetime

    @property
    def is_admin(self) -> bool:
        """Whether this is an administrator: of one project, or of all."""
        return self.role == ADMIN

    @property
    def runs_the_installation(self) -> bool:
        """Whether this is an administrator of all projects, who may see what concerns the whole installation."""
        return self.is_admin and self.project_id is None

    def principal(self, project_id: str) -> Principal:
        """Return who this is for the use cases of a project.

        Raises:
            NotFound: the session is for another project.
        """
        if self.project_id is not None and self.project_id != project_id:
            raise NotFound(f"There is no project '{project_id}'.")
        return Principal(
            project_id=project_id,
            key_id=self.key_id,
            permissions=self.authority.permissions,
            app_ids=self.authority.app_ids,
            networks=tuple(self.authority.networks),
            expires_at=self.authority.expires_at,
            operator="" if self.key_id else self.operator,
            withheld=self.withheld,
        )

    def is_recent(self, now: datetime) -> bool:
        """Tell whether somebody has signed in lately, and has not left an open browser behind."""
        return now - self.signed_in_at <= RECENT

    def require_recent(self, now: datetime) -> None:
        """Check that `is_recent`.

        Raises:
            SignInTooOld: they have to sign in again.
        """
        if not self.is_recent(now):
            raise SignInTooOld


def signed_in(session: ConsoleSession, key: ManagementKey | None) -> SignedIn:
    """Return what a session's row says; `key` is the one that it rests on, where it does."""
    if key is not None:
        of_key = authority_of(key)
        authority = Authority(
            permissions=of_key.permissions - FETCHING,
            app_ids=of_key.app_ids,
            networks=of_key.networks,
            expires_at=of_key.expires_at,
        )
        withheld = of_key.permissions & FETCHING
    else:
        authority, withheld = Authority(permissions=ROLES[session.role]), given_by(session.role)
    return SignedIn(
        session_id=session.id,
        operator=session.operator,
        way=session.way,
        role=session.role,
        project_id=session.project_id,
        authority=authority,
        withheld=withheld,
        key_id=session.key_id,
        signed_in_at=session.signed_in_at,
        seen_at=session.seen_at,
        expires_at=session.expires_at,
    )
