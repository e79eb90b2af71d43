"""The step for the project itself: its name, and the origins of its applications."""

from collections.abc import Sequence
from datetime import datetime

from evergrant.broker.apply.step import PlanStep, change
from evergrant.broker.apply.wanted import WantedThing
from evergrant.broker.projects.projects import update_project
from evergrant.broker.projects.redirects import origin_of
from evergrant.broker.runtime.broker import Broker
from evergrant.db import Project

_ORIGINS = {"redirect_origins": "redirectOrigins", "embed_origins": "embedOrigins"}


def as_it_will_be(stored: Project, entry: WantedThing) -> Project:
    """Return a project with what is wanted of it; it is nobody's row.

    Raises:
        InvalidValue: something is no origin.
    """
    origins = {name: _wanted_origins(entry.given[name], wire) for name, wire in _ORIGINS.items() if name in entry.given}
    kept = {name: getattr(stored, name) for name in ("id", "name", *_ORIGINS)}
    return Project(**{**kept, **entry.given, **origins})


def _wanted_origins(urls: Sequence[str], field: str) -> list[str]:
    return sorted({origin_of(url, field=field) for url in urls})


def project_step(broker: Broker, stored: Project, entry: WantedThing, wanted: Project) -> PlanStep | None:
    """Return what changes the project; None when it is what is wanted."""
    changes = [
        change(name, getattr(wanted, name), getattr(stored, name))
        for name in ("name", *_ORIGINS)
        if _compared(getattr(wanted, name)) != _compared(getattr(stored, name))
    ]
    if not changes:
        return None

    async def update(_now: datetime) -> str:
        await update_project(broker, stored.id, **entry.given)
        return ""

    return PlanStep(act="update", kind="project", name=stored.id, changes=changes, where=entry.where, do=update)


def _compared(value: str | list[str]) -> str | list[str]:
    """A project's first origins stand in the order in which they were given."""
    return value if isinstance(value, str) else sorted(value)
