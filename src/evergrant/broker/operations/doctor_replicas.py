"""Whether the processes that refresh agree about what they must have in common."""

import json
from collections import defaultdict
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from evergrant.broker.operations.doctor_finding import Finding, listed, todo
from evergrant.db import Holder

VERSION, LIBRARY = "version", "EVERGRANT_CATALOG_DIR"


async def disagreement(session: AsyncSession, *, alive_since: datetime) -> Finding:
    """Compare what the processes that were there since then say of themselves. Earlier versions say nothing."""
    query = select(Holder.name, Holder.traits).where(Holder.beat_at > alive_since, Holder.traits != "")
    alike: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    processes = 0
    for name, traits in await session.execute(query.order_by(Holder.name)):
        processes += 1
        for setting, value in json.loads(traits).items():
            alike[setting][value].append(name)
    differing = {setting: groups for setting, groups in alike.items() if len(groups) > 1}
    if not differing:
        return Finding("replicas", True, f"{processes} processes that refresh agree")
    told = "; ".join(f"{setting}: {_sides(setting, groups)}" for setting, groups in differing.items())
    if differing.keys() <= {VERSION, LIBRARY}:
        return todo("replicas", f"not all are alike: {told}. Bring all to one version and one folder of templates")
    return Finding("replicas", False, f"they disagree: {told}. Give all the same settings, and start them again")


def _sides(setting: str, groups: dict[str, list[str]]) -> str:
    return " unlike ".join(
        (f"{value} on " if setting == VERSION else "") + listed(names) for value, names in groups.items()
    )
