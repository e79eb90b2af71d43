"""The commands `evergrant keys`."""

import json
from datetime import timedelta

import click

from evergrant import clock
from evergrant.broker.access.management_keys import NewKey, create_key, delete_key, list_keys, set_key_disabled
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Permission
from evergrant.cli.running import json_option, print_rows, project_option, run, the_project


@click.group()
def keys() -> None:
    """Management keys: what your backends authenticate with."""


@keys.command()
@project_option
@click.option("--name", required=True, help="What the key is for.")
@click.option(
    "--permission",
    "permissions",
    multiple=True,
    type=click.Choice([str(permission) for permission in Permission]),
    help="What it may do; all of it when left out. May be repeated.",
)
@click.option("--app", "app_ids", multiple=True, help="Limit it to this app. May be repeated.")
@click.option("--from", "cidrs", multiple=True, help="Network it works from, e.g. 203.0.113.0/24. May be repeated.")
@click.option("--days", type=click.IntRange(min=1), help="Days until it expires.")
@json_option
def create(
    project_id: str | None,
    name: str,
    permissions: tuple[str, ...],
    app_ids: tuple[str, ...],
    cidrs: tuple[str, ...],
    days: int | None,
    as_json: bool,
) -> None:
    """Make a key and print it, this once."""
    now = clock.now()

    async def _create(broker: Broker) -> NewKey:
        project = await the_project(broker, project_id)
        async with broker.database.write() as session:
            return await create_key(
                session,
                project,
                name=name,
                now=now,
                permissions=permissions or [str(permission) for permission in Permission],
                app_ids=app_ids,
                allowed_cidrs=cidrs,
                expires_at=now + timedelta(days=days) if days else None,
            )

    key = run(_create)
    click.echo(json.dumps({"id": key.id, "managementKey": key.text}) if as_json else f"{key.id}  {key.text}")


@keys.command("list")
@project_option
@json_option
def list_(project_id: str | None, as_json: bool) -> None:
    """List a project's keys. Their texts are not stored."""

    async def _list(broker: Broker) -> list[dict[str, object]]:
        return [
            {
                "id": key.id,
                "name": key.name,
                "status": "disabled" if key.disabled else "active",
                "permissions": key.permissions if len(key.permissions) < len(Permission) else ["all"],
                "apps": key.app_ids,
                "from": key.allowed_cidrs,
                "expires": key.expires_at.isoformat(timespec="seconds") if key.expires_at else None,
                "lastUsed": key.last_used_at.isoformat(timespec="seconds") if key.last_used_at else None,
            }
            for key in await list_keys(broker, await the_project(broker, project_id))
        ]

    print_rows(run(_list), as_json=as_json)


@keys.command()
@project_option
@click.argument("key_id")
def disable(project_id: str | None, key_id: str) -> None:
    """Stop a key from working, within 5 seconds everywhere."""
    _set_disabled(project_id, key_id, disabled=True)


@keys.command()
@project_option
@click.argument("key_id")
def enable(project_id: str | None, key_id: str) -> None:
    """Let a disabled key work again."""
    _set_disabled(project_id, key_id, disabled=False)


def _set_disabled(project_id: str | None, key_id: str, *, disabled: bool) -> None:
    async def _set(broker: Broker) -> None:
        await set_key_disabled(broker, await the_project(broker, project_id), key_id, disabled=disabled)

    run(_set)
    click.echo(f"{key_id}  {'disabled' if disabled else 'active'}")


@keys.command()
@project_option
@click.argument("key_id")
def delete(project_id: str | None, key_id: str) -> None:
    """Delete a key, within 5 seconds everywhere."""

    async def _delete(broker: Broker) -> None:
        await delete_key(broker, await the_project(broker, project_id), key_id)

    run(_delete)
    click.echo(f"{key_id}  deleted")
