"""Health: whether evergrant itself is well, for administrators."""

import asyncio

from fastapi import APIRouter
from fastapi.responses import Response

from evergrant import clock
from evergrant.broker.activity.attention import take_a_glance
from evergrant.broker.operations.doctor import examine_installation
from evergrant.broker.operations.doctor_finding import Finding
from evergrant.broker.operations.health_report import HealthReport, read_health
from evergrant.errors import PermissionDenied
from evergrant.web.console import activity_view as view
from evergrant.web.console.desk import Desk, GlancingDesk
from evergrant.web.console.kinds import kind_of
from evergrant.web.console.route import ConsoleRoute

router = APIRouter(route_class=ConsoleRoute)

CHECK_SECONDS = 25.0
"""How long the checks may take: some ask a key service, which may hang."""


@router.get("/console/{project}/health")
async def show(desk: GlancingDesk) -> Response:
    """Show how evergrant is; what concerns the whole installation, to those alone who run it."""
    return await _page(desk, None)


@router.post("/console/{project}/health")
async def check(desk: GlancingDesk) -> Response:
    """Do what `evergrant doctor` does, and show what it finds. It changes nothing, so the answer is the page."""
    if not desk.who.runs_the_installation:
        raise PermissionDenied("Only an administrator of all projects can check the installation.")
    findings: list[Finding] = []
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            async for finding in examine_installation(desk.broker.settings):
                findings.append(finding)  # noqa: PERF401 - those before a timeout count
    except TimeoutError:
        findings.append(Finding("time", False, f"the next check took longer than {CHECK_SECONDS:.0f} s"))
    return await _page(desk, findings)


async def _page(desk: Desk, findings: list[Finding] | None) -> Response:
    if not desk.who.is_admin:
        raise PermissionDenied("Only administrators see how the installation is.")
    now = clock.now()
    glance = await take_a_glance(desk.broker, desk.principal, now=now)
    report = await read_health(desk.broker) if desk.who.runs_the_installation else None
    return desk.with_to_do(glance.to_do).page(
        "health.html",
        report=report,
        findings=findings,
        tiles=view.tiles_of(glance.apps),
        apps=[one for one in view.by_trouble(glance.apps) if not kind_of(one.app).is_key],
        refresher_at=glance.refresher_at,
        is_missing=glance.is_without_refresher,
        as_text=as_text(report, findings) if report is not None else "",
        view=view,
    )


def as_text(report: HealthReport, findings: list[Finding] | None) -> str:
    """Return the report to copy into an issue: nothing secret, and no person is in it."""
    ahead = report.clock_ahead.total_seconds()
    lines = [
        f"evergrant {report.version}, Python {report.python}, {report.database}",
        f"clock: {ahead:+.1f} s",
        f"journal: {report.journal_waiting} waiting, {report.journal_broken} put aside",
        f"endpoints left alone: {len(report.endpoints)}",
        *(f"master key {key_id}: {n} data keys" for key_id, n in report.master_keys.items()),
    ]
    for finding in findings or ():
        word = "WRONG" if not finding.good else "todo" if finding.advice else "ok"
        lines.append(f"{word:<5}  {finding.what:<12}  {finding.text}")
    return "\n".join(lines)
