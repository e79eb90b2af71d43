"""The command `evergrant apply`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from evergrant import clock
from evergrant.broker.apply.plan import Plan, carry_out, make_plan
from evergrant.broker.apply.step import Change, LeftOver, PlanStep
from evergrant.broker.runtime.broker import Broker
from evergrant.cli.apply_file import read_file
from evergrant.cli.apply_writing import write_file
from evergrant.cli.running import json_option, project_option, run, the_project
from evergrant.cli.yaml_lines import Lines
from evergrant.errors import EvergrantError, InvalidRequest
from evergrant.logs import printable

WOULD_CHANGE = 2
"""The exit code of --plan where something is to be done."""
_SIGN = {"create": "+", "update": "~", "delete": "-"}
_KIND = {"trustedIssuer": "trusted issuer"}


@click.command()
@project_option
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--plan", "only_plan", is_flag=True, help="Only say what would change: exit code 2 where something would."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--prune", is_flag=True, help="Delete what the file's sections do not name.")
@click.option(
    "--write", is_flag=True, help="Write FILE from what there is instead, without secrets. It must not exist."
)
@json_option
@click.pass_context
def apply(
    context: click.Context,
    project_id: str | None,
    file: Path,
    only_plan: bool,
    yes: bool,
    prune: bool,
    write: bool,
    as_json: bool,
) -> None:
    """Make apps, trusted issuers, policies and webhooks what FILE says.

    It is YAML. Says what will change, and asks. What FILE does not name stays as it is. Secrets stand elsewhere, and
    FILE refers to them: env:NAME or file:PATH.
    """
    if write:
        if only_plan or yes or prune or as_json:
            raise click.UsageError("--write goes with no other option than --project")
        run(lambda broker: _write(broker, project_id, file))
        return
    if as_json and not (only_plan or yes):
        raise click.UsageError("--json cannot ask: give --plan or --yes too")
    wanted, lines = read_file(file)

    async def _apply(broker: Broker) -> int:
        project = await the_project(broker, project_id)
        try:
            plan = await make_plan(broker, project, wanted, prune=prune, today=clock.now().date())
        except InvalidRequest as error:
            raise _by_line(lines, error) from None
        if not as_json:
            _print_plan(plan)
        if only_plan or not plan.steps:
            if as_json:
                click.echo(json.dumps(_document(project, plan, applied=False), indent=2))
            return WOULD_CHANGE if only_plan and plan.steps else 0
        if not yes:
            click.confirm("Do this?", abort=True)
        await _carry_out(plan, lines, quiet=as_json)
        if as_json:
            click.echo(json.dumps(_document(project, plan, applied=True), indent=2))
        return 0

    context.exit(run(_apply))


async def _carry_out(plan: Plan, lines: Lines, *, quiet: bool) -> None:
    done = 0
    try:
        async for step, todo in carry_out(plan):
            done += 1
            if not quiet:
                click.echo(f"done: {_title(step)}")
            if todo:
                click.echo(todo, err=quiet)
    except EvergrantError as error:
        click.echo(f"{done} of {len(plan.steps)} changes were made, and the rest was not: run it again.", err=True)
        if isinstance(error, InvalidRequest):
            raise _by_line(lines, error) from None
        failed = plan.steps[done]
        raise InvalidRequest(f"{lines.file}:{lines.line(failed.where)}: {_title(failed)}: {error.message}") from None


def _by_line(lines: Lines, error: InvalidRequest) -> InvalidRequest:
    named = error.details.get("fields", ())
    return lines.error([(one["field"], one["problem"]) for one in named]) if named else error


async def _write(broker: Broker, project_id: str | None, file: Path) -> None:
    await write_file(broker, await the_project(broker, project_id), file)
    click.echo(f"{file} has what there is, without secrets. 'evergrant apply --plan {file}' changes nothing.")


def _print_plan(plan: Plan) -> None:
    for step in plan.steps:
        note = f": {step.note}" if step.note else ""
        click.echo(f"{_SIGN[step.act]} {_title(step)}{note}")
        for one in step.changes if step.kind != "policy" else ():  # a policy's name says all of it
            click.echo(f"    {one.field}{_values(one, new=step.act == 'create')}")
    for left in plan.left:
        click.echo(f"  {_title(left)} is not in the file, and stays: --prune deletes it")
    if not plan.steps:
        click.echo("Nothing to do.")


def _title(thing: PlanStep | LeftOver) -> str:
    """Say what this is about. Names come from others too, and shall not move a terminal's cursor."""
    return printable(f"{_KIND.get(thing.kind, thing.kind)} {thing.name}")


def _values(one: Change, *, new: bool) -> str:
    if not one.shown:
        return "" if new else " changes"
    return f": {_text(one.after)}" if new else f": {_text(one.before)} -> {_text(one.after)}"


def _text(value: Any) -> str:
    return printable(json.dumps(value, ensure_ascii=False))


def _document(project_id: str, plan: Plan, *, applied: bool) -> dict[str, Any]:
    steps = [
        {
            "act": step.act,
            "kind": step.kind,
            "name": step.name,
            "note": step.note,
            "changes": [
                {"field": one.field} | ({"before": one.before, "after": one.after} if one.shown else {})
                for one in step.changes
            ],
        }
        for step in plan.steps
    ]
    return {"projectId": project_id, "applied": applied, "steps": steps, "left": [asdict(one) for one in plan.left]}
