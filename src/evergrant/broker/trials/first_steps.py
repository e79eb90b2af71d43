"""A project's first steps, from its first app to a token and on to production. What is done is seen from facts."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import CompoundSelect, String, cast, distinct, exists, func, or_, select, union_all

from evergrant.app_types import AppType
from evergrant.broker.audit.record import record
from evergrant.broker.projects.projects import load_project
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.broker.trials.steps import Step, StepName, StepState
from evergrant.broker.trials.trial import KEPT_USER
from evergrant.db import (
    AppTest,
    ConsoleSession,
    Grant,
    GrantDirectory,
    GrantStatus,
    GrantUse,
    ManagementKey,
    OutboundApp,
    Project,
    Webhook,
)

FEW = 50


class FirstStep(StrEnum):
    """What there is to do, in its order."""

    APP = "app"
    CALLBACK = "callback"
    CONNECTED = "connected"
    KEY = "key"
    FETCHED = "fetched"
    WEBHOOK = "webhook"
    SECOND_OPERATOR = "secondOperator"


@dataclass(frozen=True, slots=True)
class FirstSteps:
    """How far a project is."""

    done: frozenset[FirstStep]
    is_dismissed: bool
    app: OutboundApp | None
    """The app that the next steps are about: the one that is connected, else the first."""
    user_id: str
    """Whose token can be fetched from it; empty while nobody is connected."""
    tenant_id: str

    @property
    def next(self) -> FirstStep | None:
        """What to do next."""
        return next((step for step in FirstStep if step not in self.done), None)

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to show."""
        return self.is_dismissed or self.next is None


async def first_steps(broker: Broker, principal: Principal) -> FirstSteps:
    """Return how far a project is, by what is in its database.

    Raises:
        PermissionDenied: it takes `apps:write`.
    """
    principal.require(Permission.APPS_WRITE)
    project_id = principal.project_id
    usable = (Grant.project_id == project_id, Grant.status == GrantStatus.ACTIVE)
    may = cast(ManagementKey.permissions, String)
    in_use = (ManagementKey.project_id == project_id, ManagementKey.disabled.is_(False))
    here = or_(ConsoleSession.project_id.is_(None), ConsoleSession.project_id == project_id)
    facts = select(
        exists().where(*usable).label("connected"),
        # A key that may do everything is the installation's own, and should be in no application.
        exists()
        .where(*in_use, may.contains(Permission.TOKENS_FETCH), ~may.contains(f'"{Permission.KEYS}"'))
        .label("key"),
        exists().where(GrantUse.project_id == project_id).label("fetched"),
        exists().where(Webhook.project_id == project_id).label("webhook"),
        exists().where(here, ConsoleSession.way == "oidc").label("oidc"),
        select(func.count(distinct(ConsoleSession.operator))).where(here).scalar_subquery().label("operators"),
        select(Project.start_dismissed_at).where(Project.id == project_id).scalar_subquery().label("dismissed_at"),
    )
    tests = select(AppTest.steps).where(AppTest.project_id == project_id, AppTest.left_at.is_not(None)).limit(FEW)
    first = select(OutboundApp).where(OutboundApp.project_id == project_id)
    async with broker.database.read() as session:
        found = (await session.execute(facts)).one()
        owner = (await session.execute(_somebody_connected(project_id))).first()
        # Somebody may have a connection of any kind; before that, the steps are about a consent.
        of_owner = OutboundApp.id == owner.app_id if owner is not None else OutboundApp.app_type == AppType.OAUTH
        first = first.where(of_owner)
        app = (await session.scalars(first.order_by(OutboundApp.created_at, OutboundApp.id).limit(1))).one_or_none()
        steps = [Step.from_json(step) for row in await session.scalars(tests) for step in row]
    came_back = any(step.name == StepName.CAME_BACK and step.state == StepState.GOOD for step in steps)
    facts_by_step = {
        FirstStep.APP: app is not None,
        FirstStep.CALLBACK: came_back or found.connected,
        FirstStep.CONNECTED: found.connected,
        FirstStep.KEY: found.key,
        FirstStep.FETCHED: found.fetched or broker.uses.has_grant_of(project_id),
        FirstStep.WEBHOOK: found.webhook,
        FirstStep.SECOND_OPERATOR: found.oidc or found.operators > 1,
    }
    return FirstSteps(
        frozenset(step for step, is_done in facts_by_step.items() if is_done),
        found.dismissed_at is not None,
        app,
        owner.user_id if owner is not None else "",
        owner.tenant_id if owner is not None else "",
    )


def _somebody_connected(project_id: str) -> CompoundSelect[tuple[str, str, str]]:
    """Return the query for somebody whose token can be fetched: the test's kept user before any other."""
    whose = select(Grant.app_id, Grant.user_id, Grant.tenant_id).where(
        Grant.project_id == project_id,
        Grant.status == GrantStatus.ACTIVE,
        Grant.external_identifier == "",
        Grant.user_id != "",
    )
    # By the directory, which finds a user without reading everybody's grants.
    of_kept = select(GrantDirectory.grant_id).where(
        GrantDirectory.project_id == project_id, GrantDirectory.user_id == KEPT_USER
    )
    kept, anybody = whose.where(Grant.id.in_(of_kept)).limit(1), whose.limit(1)
    return union_all(select(kept.subquery()), select(anybody.subquery()))


async def dismiss_first_steps(broker: Broker, principal: Principal, *, now: datetime) -> None:
    """Put the list of first steps away, for everybody in the project.

    Raises:
        PermissionDenied: it takes `apps:write`.
    """
    principal.require(Permission.APPS_WRITE)
    async with broker.database.write() as session:
        project = await load_project(session, principal.project_id)
        if project.start_dismissed_at is None:
            project.start_dismissed_at = now
            await record(session, project.id, "project.first_steps_dismissed")
