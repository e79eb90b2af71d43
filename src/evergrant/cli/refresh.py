"""The commands `evergrant refresh`: how the background keeps up, and refreshing now."""

import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from typing import Any

import click

from evergrant import clock
from evergrant.broker.projects.projects import load_project
from evergrant.broker.refresh.backlog import CAP
from evergrant.broker.refresh.manual_run import ManualRun, RunResult, chosen_apps, plan
from evergrant.broker.refresh.status import RATE_WINDOW, AppStatus, HolderStatus, RefreshStatus, read_status
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.holder import longest_silence
from evergrant.broker.runtime.journal import Census
from evergrant.cli.running import json_option, print_rows, run
from evergrant.db import OutboundApp
from evergrant.pace import PACE

REASONS_SHOWN = 5
INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""

of_project = click.option("--project", "project_id", help="One project only, by id.")


@click.group()
def refresh() -> None:
    """How the background refresher keeps up, and refreshing now."""


@refresh.command()
@of_project
@click.option("--exact", "exactly", is_flag=True, help="Look at every connection, however many there are.")
@json_option
def status(project_id: str | None, exactly: bool, as_json: bool) -> None:
    """Show what is due and overdue, in flight and failing, and how fast it is worked off."""

    async def _read(broker: Broker) -> tuple[RefreshStatus, Census]:
        if project_id is not None:
            async with broker.database.read() as session:
                await load_project(session, project_id)
        progress = await read_status(broker, project_id=project_id, exactly=exactly, now=clock.now())
        return progress, await asyncio.to_thread(broker.journal.census)

    progress, journal = run(_read)
    rows = [_row(app) for app in progress.apps]
    total = _total(progress)
    if as_json:
        journal_row = {"entries": journal.waiting, "broken": journal.broken}
        holders = [_holder_row(holder) for holder in progress.holders]
        click.echo(json.dumps({**total, "journal": journal_row, "holders": holders, "apps": rows}, indent=2))
        return
    print_rows([_for_a_person(row) for row in rows], as_json=False)
    click.echo()
    eta = total["secondsToWorkOff"]
    for what, text in (
        ("due now", _capped(total["due"])),
        ("overdue for 5 min", _capped(total["overdue"])),
        ("in flight", str(total["inFlight"])),
        ("refreshed", f"{total['refreshedInTenMinutes']} in the last 10 minutes"),
        ("backlog ends", "there is none" if not total["due"] else "not at this rate" if eta is None else _span(eta)),
        ("unhealthy apps", ", ".join(total["unhealthyApps"]) or "none"),
        ("processes", _processes(progress)),
        ("journal here", f"{journal.waiting} waiting, {journal.broken} unreadable"),
    ):
        click.echo(f"{what:<18}{text}")
    if progress.sampled < 1:
        click.echo(f"\nRefreshed, failing and dead are projected from a sample of {progress.sampled:.1%}; see --exact.")


def _row(app: AppStatus) -> dict[str, Any]:
    backlog = app.backlog
    return {
        "project": backlog.app.project_id,
        "app": backlog.app.id,
        "due": backlog.due,
        "overdue": app.overdue,
        "oldestDueSeconds": round(backlog.age(now=clock.now())),
        "inFlight": app.in_flight,
        "refreshedInTenMinutes": round(app.landed),
        "failing": round(app.failing),
        "reauthorizationRequired": round(app.reauthorization_required),
        "commonestError": next((text for text, _ in app.errors.most_common(1)), ""),
        "health": "healthy" if backlog.app.unhealthy_since is None else "unhealthy",
        "unhealthyReason": backlog.app.unhealthy_reason,
    }


def _holder_row(holder: HolderStatus) -> dict[str, Any]:
    return {
        "name": holder.name,
        "startedTime": int(holder.started_at.timestamp()),
        "silentSeconds": round(holder.silent_seconds, 1),
    }


def _processes(progress: RefreshStatus) -> str:
    """Name the processes that have held leases, and say of those that have been silent for how long."""
    silent = longest_silence(PACE)
    names = [
        holder.name if holder.silent_seconds <= silent else f"{holder.name} (silent for {_span(holder.silent_seconds)})"
        for holder in progress.holders
    ]
    return ", ".join(names) or "none has refreshed yet"


def _total(progress: RefreshStatus) -> dict[str, Any]:
    due = sum(app.backlog.due for app in progress.apps)
    landed = sum(app.landed for app in progress.apps)
    unhealthy = [app.backlog.app.id for app in progress.apps if app.backlog.app.unhealthy_since is not None]
    return {
        "due": due,
        "overdue": sum(app.overdue for app in progress.apps),
        "inFlight": sum(app.in_flight for app in progress.apps),
        "refreshedInTenMinutes": round(landed),
        "secondsToWorkOff": round(due / landed * RATE_WINDOW.total_seconds()) if landed else None if due else 0,
        "unhealthyApps": unhealthy,
        "sampledShare": progress.sampled,
    }


def _for_a_person(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "project": row["project"],
        "app": row["app"],
        "due": _capped(row["due"]),
        "overdue": _capped(row["overdue"]),
        "oldest": _span(row["oldestDueSeconds"]),
        "in flight": row["inFlight"],
        "in 10 min": row["refreshedInTenMinutes"],
        "failing": row["failing"],
        "dead": row["reauthorizationRequired"],
        "health": row["health"],
        "commonest error": row["commonestError"] or row["unhealthyReason"],
    }


def _capped(count: int) -> str:
    return f"{count:,}" if count <= CAP else f"more than {CAP:,}"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"


@refresh.command("run")
@of_project
@click.option("--app", "app_id", help="One app only, by id.")
@click.option("--all", "everything", is_flag=True, help="Also what is not due yet, whatever the app's policy.")
@click.option("--dry-run", is_flag=True, help="Only say how many would be refreshed where; nothing is changed.")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 100),
    help="Calls at once at each token endpoint; as EVERGRANT_REFRESH_CONCURRENCY_PER_ENDPOINT by itself.",
)
@json_option
def run_(
    project_id: str | None, app_id: str | None, everything: bool, dry_run: bool, concurrency: int | None, as_json: bool
) -> None:
    """Refresh what is due, now and in this process; Ctrl-C stops after what is in flight.

    The exit code is 1 when something could not be refreshed.
    """

    async def _apps(broker: Broker) -> list[OutboundApp]:
        return await chosen_apps(broker, project_id=project_id, app_id=app_id)

    async def _plan(broker: Broker) -> list[dict[str, Any]]:
        now = clock.now()
        plans = [await plan(broker, app, everything=everything, now=now) for app in await _apps(broker)]
        return [
            {
                "project": one.app.project_id,
                "app": one.app.id,
                "endpoint": one.app.token_url.partition("?")[0],
                "refreshes": one.calls,
                "putOff": one.put_off,
                "inFlight": one.held,
            }
            for one in plans
        ]

    async def _run(broker: Broker) -> tuple[RunResult, bool]:
        at_once = concurrency or broker.settings.refresh_concurrency_per_endpoint
        return await _refresh_now(broker, await _apps(broker), everything=everything, at_once=at_once)

    if dry_run:
        print_rows(run(_plan), as_json=as_json)
        return
    outcome, stopped = run(_run)
    _print_outcome(outcome, stopped=stopped, as_json=as_json)
    sys.exit(INTERRUPTED if stopped else int(bool(outcome.failed or outcome.given_up)))


async def _refresh_now(
    broker: Broker, apps: Sequence[OutboundApp], *, everything: bool, at_once: int
) -> tuple[RunResult, bool]:
    """Do it, with a bar on standard error where a person looks; returns whether it was stopped."""
    now = clock.now()
    plans = [await plan(broker, app, everything=everything, now=now) for app in apps]
    stop = asyncio.Event()

    def stop_soon() -> None:
        if not stop.is_set():
            below_the_bar = "\n" if sys.stderr.isatty() else ""
            click.echo(f"{below_the_bar}Stopping when what is in flight has landed.", err=True)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop_soon)
    try:
        with click.progressbar(
            length=sum(one.calls + one.put_off for one in plans),
            label="Refreshing",
            file=sys.stderr,
            hidden=not sys.stderr.isatty(),
        ) as bar:
            manual_run = ManualRun(broker, everything=everything, at_once=at_once, stop=stop, tell=bar.update, now=now)
            outcome = await manual_run.run(apps)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    return outcome, stop.is_set()


def _print_outcome(outcome: RunResult, *, stopped: bool, as_json: bool) -> None:
    if as_json:
        click.echo(
            json.dumps(
                {
                    "refreshed": outcome.refreshed,
                    "putOff": outcome.put_off,
                    "failed": [{"reason": reason, "count": count} for reason, count in outcome.failed.most_common()],
                    "givenUp": outcome.given_up,
                    "stopped": stopped,
                },
                indent=2,
            )
        )
        return
    click.echo(f"refreshed  {outcome.refreshed:,}")
    click.echo(f"put off    {outcome.put_off:,}")
    click.echo(f"failed     {outcome.failed.total():,}")
    for reason, count in outcome.failed.most_common(REASONS_SHOWN):
        click.echo(f"           {count:,}  {reason}")
    if outcome.given_up:
        click.echo(f"Left the rest of {', '.join(outcome.given_up)}: the token endpoint fails again and again.")
    if stopped:
        click.echo("Stopped: what was in flight is finished, the rest is as before.")
