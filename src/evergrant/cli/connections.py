"""The commands `evergrant connections`."""

import sys
from pathlib import Path

import click

from evergrant import clock
from evergrant.broker.apps.apps import load_app
from evergrant.broker.apps.variables import template_of
from evergrant.broker.connections.credential_fields import fields_asked
from evergrant.broker.connections.credentials_upload import CredentialsUpload, upload_credentials
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.catalog.field import CredentialField
from evergrant.cli.running import PASTED, project_option, run, the_project
from evergrant.pasted import trimmed


@click.group()
def connections() -> None:
    """Connections that nobody makes in a browser: keys, and credentials that tokens are obtained from."""


@connections.command()
@project_option
@click.argument("app_id", type=PASTED)
@click.option("--user", "user_id", default="", help="Whose they are, by your own id; with --tenant, within that.")
@click.option("--tenant", "tenant_id", default="", help="The tenant whose they are.")
@click.option(
    "--field",
    "fields",
    multiple=True,
    help="NAME=VALUE, NAME=@FILE, or NAME=- to read it from standard input. Repeatable. Better not for secrets, which "
    "are asked for: the shell keeps what is typed.",
)
@click.option("--detail", "details", multiple=True, type=PASTED, help="NAME=VALUE: its shop, its company. Repeatable.")
@click.option("--scope", "scopes", multiple=True, type=PASTED, help="What tokens are asked for. Repeatable.")
@click.option("--external-identifier", default="", help="Tells several accounts of one owner apart.")
@click.option("--no-verify", is_flag=True, help="Store them without trying them at the provider first.")
def add(
    project_id: str | None,
    app_id: str,
    user_id: str,
    tenant_id: str,
    fields: tuple[str, ...],
    details: tuple[str, ...],
    scopes: tuple[str, ...],
    external_identifier: str,
    no_verify: bool,
) -> None:
    """Store an owner's credentials for APP_ID, in the place of those before.

    'evergrant templates show' names the fields of an app's template.
    """
    if not user_id and not tenant_id:
        raise click.UsageError("say whose they are: --user or --tenant")
    given = {name: _read(name, value) for name, value in (_pair(text, "--field") for text in fields)}
    owner_details = {name: trimmed(value) for name, value in (_pair(text, "--detail") for text in details)}

    async def _asked(broker: Broker) -> dict[str, CredentialField]:
        app = await load_app(broker, await the_project(broker, project_id), app_id)
        return fields_asked(template_of(broker, app), app, given)

    for name, field in run(_asked).items():
        if name not in given and field.required and field.secret and not field.multiline:
            given[name] = str(click.prompt(field.title, hide_input=True))
    upload = CredentialsUpload(
        app_id=app_id,
        owner=ResourceOwner(user_id, tenant_id),
        fields=given,
        details=owner_details,
        scopes=scopes or None,
        external_identifier=external_identifier,
    )

    async def _upload(broker: Broker) -> None:
        principal = _operator(await the_project(broker, project_id))
        await upload_credentials(broker, principal, upload, verify=not no_verify, now=clock.now())

    run(_upload)
    whose = f"user {user_id}" if user_id else f"tenant {tenant_id}"
    click.echo(f"{app_id}  {whose}  stored")


def _operator(project_id: str) -> Principal:
    """Return who is at the command line: it reaches the database, so that no permission could be asked of it."""
    return Principal(
        project_id=project_id,
        key_id="",
        permissions=frozenset({Permission.TOKENS_WRITE}),
        app_ids=frozenset(),
        networks=(),
        expires_at=None,
        operator="cli",
    )


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter("write NAME=VALUE", param_hint=option)
    return trimmed(name), value


def _read(name: str, value: str) -> str:
    if value == "-":
        return sys.stdin.read()
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text()
    except (OSError, UnicodeDecodeError):
        raise click.BadParameter(f"{name}: {value[1:]} cannot be read as text", param_hint="--field") from None
