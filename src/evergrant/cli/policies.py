"""The commands `evergrant policies`."""

import click

from evergrant import clock
from evergrant.broker.access.policies import create_policy, delete_policy, list_policies
from evergrant.broker.runtime.admission import ACTIONS, EFFECTS, LEVELS, VIAS
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.path_globs import METHODS
from evergrant.cli.running import json_option, print_rows, project_option, run, the_project


@click.group()
def policies() -> None:
    """Access policies: who may fetch, connect or call an app."""


@policies.command()
@project_option
@click.argument("app_id")
@click.argument("action", type=click.Choice(ACTIONS))
@click.option("--claim", "claims", multiple=True, help="About users: NAME=VALUE,VALUE. May be repeated; all must hold.")
@click.option("--key", "key_ids", multiple=True, help="About management keys: this one, by id. May be repeated.")
@click.option("--scope", "scopes", multiple=True, help="At most this scope. May be repeated.")
@click.option(
    "--level",
    "levels",
    multiple=True,
    type=click.Choice(LEVELS),
    help="For users' connections, or for tenants' own. May be repeated; both when left out.",
)
@click.option(
    "--agent", "agents", multiple=True, help="About this agent, by id. May be repeated; anybody when left out."
)
@click.option("--method", "methods", multiple=True, type=click.Choice(METHODS), help="Of calls. May be repeated.")
@click.option("--path", "paths", multiple=True, help="Of calls: /v1/users/*, /v1/**. May be repeated.")
@click.option("--via", multiple=True, type=click.Choice(VIAS), help="Of calls: how they come. May be repeated.")
@click.option("--effect", type=click.Choice(EFFECTS), default="allow", help="What becomes of calls; allow by default.")
def add(
    project_id: str | None,
    app_id: str,
    action: str,
    claims: tuple[str, ...],
    key_ids: tuple[str, ...],
    scopes: tuple[str, ...],
    levels: tuple[str, ...],
    agents: tuple[str, ...],
    methods: tuple[str, ...],
    paths: tuple[str, ...],
    via: tuple[str, ...],
    effect: str,
) -> None:
    """Allow ACTION on APP_ID. With the first policy, everybody whom none allows is refused."""

    async def _add(broker: Broker) -> str:
        policy = await create_policy(
            broker,
            await the_project(broker, project_id),
            app_id=app_id,
            action=action,
            claims=dict(_claim(text) for text in claims),
            key_ids=key_ids,
            scopes=scopes,
            levels=levels,
            agents=agents,
            methods=methods,
            paths=paths,
            via=via,
            effect=effect,
            now=clock.now(),
        )
        return policy.id

    click.echo(run(_add))


def _claim(text: str) -> tuple[str, list[str]]:
    name, equals, values = text.partition("=")
    if not name or not equals or not values:
        raise click.BadParameter("write NAME=VALUE, or NAME=VALUE,VALUE", param_hint="--claim")
    return name, values.split(",")


@policies.command("list")
@project_option
@json_option
def list_(project_id: str | None, as_json: bool) -> None:
    """List a project's policies."""

    async def _list(broker: Broker) -> list[dict[str, object]]:
        return [
            {
                "id": row.id,
                "app": row.app_id,
                "action": row.action,
                "claims": row.claims,
                "keys": row.key_ids,
                "scopes": row.scopes,
                "levels": row.levels,
                "agents": row.agents,
                "methods": row.methods,
                "paths": row.paths,
                "via": row.via,
                "effect": row.effect,
            }
            for row in await list_policies(broker, await the_project(broker, project_id))
        ]

    print_rows(run(_list), as_json=as_json)


@policies.command()
@project_option
@click.argument("policy_id")
def remove(project_id: str | None, policy_id: str) -> None:
    """Delete a policy, within 5 seconds everywhere."""

    async def _remove(broker: Broker) -> None:
        await delete_policy(broker, await the_project(broker, project_id), policy_id)

    run(_remove)
    click.echo(f"{policy_id}  removed")
