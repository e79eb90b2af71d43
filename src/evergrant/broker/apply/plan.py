"""The plan: all that has to be done so that a project is what somebody wants, found out before anything is done."""

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date

from evergrant import clock
from evergrant.broker.access.policies import list_policies
from evergrant.broker.apply.app_steps import app_deletion, app_id_of, app_step
from evergrant.broker.apply.issuer_steps import issuer_deletion, issuer_meant, issuer_step
from evergrant.broker.apply.policy_steps import (
    Content,
    content_of,
    name_of,
    policy_deletion,
    policy_step,
    wanted_policy,
)
from evergrant.broker.apply.project_step import as_it_will_be, project_step
from evergrant.broker.apply.step import LeftOver, PlanStep
from evergrant.broker.apply.wanted import WantedProject, WantedThing
from evergrant.broker.apply.webhook_steps import webhook_deletion, webhook_step
from evergrant.broker.apps.apps import list_apps
from evergrant.broker.projects.projects import load_project
from evergrant.broker.projects.trusted_issuers import list_issuers
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.webhooks.registry import list_webhooks
from evergrant.db import OutboundApp, Project
from evergrant.errors import EvergrantError, InvalidRequest, InvalidValue


@dataclass(frozen=True)
class Plan:
    """What will be done, in this order, and what is there and stays although nobody has named it."""

    steps: list[PlanStep]
    left: list[LeftOver]


async def make_plan(broker: Broker, project_id: str, wanted: WantedProject, *, prune: bool, today: date) -> Plan:
    """Compare what is wanted with what is there. `prune`: of each kind that is looked at, the rest shall go.

    Nothing is written, and nobody is asked: what only a provider or an issuer can tell shows when the plan is done.
    What is made comes before what is deleted, so that nothing is open in between because its last policy went.

    Raises:
        InvalidValue: naming every entry and field that is wrong.
        NotFound: there is no such project.
    """
    async with broker.database.read() as session:
        stored = await load_project(session, project_id)
    draft = _Draft(broker, stored, today)
    if wanted.project is not None:
        with draft.telling_of(wanted.project):
            draft.project = as_it_will_be(stored, wanted.project)
            draft.add(project_step(broker, stored, wanted.project, draft.project))
    await _plan_issuers(draft, wanted.issuers)
    apps = {app.id: app for app in await list_apps(broker, project_id)}
    unnamed = await _plan_apps(draft, apps, wanted.apps)
    named = {app_id_of(entry) for entry in wanted.apps or ()}
    await _plan_policies(
        draft, wanted.policies, app_ids=named | set(apps) - (unnamed if prune else set()), unnamed=unnamed
    )
    await _plan_webhooks(draft, wanted.webhooks)
    if draft.problems:
        raise InvalidValue.of(*draft.problems)
    if not prune:
        return Plan(draft.steps, draft.left)
    # An app takes its policies with it: it goes last.
    return Plan([*draft.steps, *sorted(draft.deletions, key=lambda step: step.kind == "app")], [])


async def carry_out(plan: Plan) -> AsyncIterator[tuple[PlanStep, str]]:
    """Do one step after the other, and yield each that is done with what is left to do for a person.

    Raises:
        EvergrantError: a step cannot be done; those before it are done, and those after it are not.
    """
    for step in plan.steps:
        try:
            todo = await step.do(clock.now())  # a person may have thought about the plan for long
        except InvalidRequest as error:
            raise (error.under(step.where) if error.details.get("fields") and step.where else error) from None
        yield step, todo


@dataclass
class _Draft:
    """A plan while it is made."""

    broker: Broker
    project: Project
    """As it will be: an app may return to an origin that the project gets by the same plan."""
    today: date
    steps: list[PlanStep] = field(default_factory=list)
    deletions: list[PlanStep] = field(default_factory=list)
    left: list[LeftOver] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)

    def add(self, step: PlanStep | None) -> None:
        """Add a step, if there is something to do."""
        if step is not None:
            self.steps.append(step)

    def add_deletion(self, step: PlanStep) -> None:
        """Add what deletes something that nobody named."""
        self.deletions.append(step)
        self.left.append(LeftOver(step.kind, step.name))

    @contextmanager
    def telling_of(self, entry: WantedThing) -> Iterator[None]:
        """Keep what is wrong with an entry for the end, so that all is told at once."""
        try:
            yield
        except EvergrantError as error:
            named = error.details.get("fields", ())
            self.problems += [(f"{entry.where}.{one['field']}", one["problem"]) for one in named]
            if not named:
                self.problems.append((entry.where, error.message))

    def tell_of_doubles(self, entries: Sequence[WantedThing], name: str) -> None:
        """Keep for the end which entries are about the same thing as one before them."""
        seen = set()
        for entry in entries:
            if entry.given[name] in seen:
                self.problems.append((f"{entry.where}.{name}", "another entry has the same: make one of the two"))
            seen.add(entry.given[name])


async def _plan_apps(draft: _Draft, apps: Mapping[str, OutboundApp], entries: Sequence[WantedThing] | None) -> set[str]:
    """Add the steps for apps, and return the ids of those that nobody has named."""
    if entries is None:
        return set()
    draft.tell_of_doubles(entries, "id")
    for entry in entries:
        with draft.telling_of(entry):
            stored = apps.get(app_id_of(entry))
            draft.add(await app_step(draft.broker, draft.project, entry, stored, today=draft.today))
    unnamed = set(apps) - {app_id_of(entry) for entry in entries}
    for app_id in sorted(unnamed):
        draft.add_deletion(await app_deletion(draft.broker, apps[app_id]))
    return unnamed


async def _plan_issuers(draft: _Draft, entries: Sequence[WantedThing] | None) -> None:
    if entries is None:
        return
    draft.tell_of_doubles(entries, "issuer")
    rows = await list_issuers(draft.broker, draft.project.id)
    meant = [issuer_meant(entry, rows) for entry in entries]
    for entry, row in zip(entries, meant, strict=True):
        with draft.telling_of(entry):
            draft.add(await issuer_step(draft.broker, draft.project.id, entry, row))
    for row in rows:
        if row not in meant:
            draft.add_deletion(issuer_deletion(draft.broker, row))


async def _plan_policies(
    draft: _Draft, entries: Sequence[WantedThing] | None, *, app_ids: Collection[str], unnamed: Collection[str]
) -> None:
    """Add the steps for policies. `app_ids` are all apps that there will be, `unnamed` those that would be deleted."""
    if entries is None:
        return
    rows = await list_policies(draft.broker, draft.project.id)
    there, wanted = {content_of(row) for row in rows}, set[Content]()
    for entry in entries:
        with draft.telling_of(entry):
            policy = wanted_policy(entry, app_ids)
            if (content := content_of(policy)) not in there | wanted:
                draft.add(policy_step(draft.broker, draft.project.id, entry, policy))
            wanted.add(content)
    for row in rows:
        if content_of(row) not in wanted:
            draft.left.append(LeftOver("policy", f"{name_of(row)} ({row.id})"))
            if row.app_id not in unnamed:
                draft.deletions.append(policy_deletion(draft.broker, row))


async def _plan_webhooks(draft: _Draft, entries: Sequence[WantedThing] | None) -> None:
    if entries is None:
        return
    draft.tell_of_doubles(entries, "url")
    rows = await list_webhooks(draft.broker, draft.project.id)
    meant = [next((row for row in rows if row.url == entry.given["url"]), None) for entry in entries]
    for entry, row in zip(entries, meant, strict=True):
        with draft.telling_of(entry):
            draft.add(await webhook_step(draft.broker, draft.project.id, entry, row))
    for row in rows:
        if row not in meant:
            draft.add_deletion(webhook_deletion(draft.broker, row))
