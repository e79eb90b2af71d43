"""The commands `evergrant apps`."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TextIO, TypeVar

import click
from pydantic import SecretStr

from evergrant import clock
from evergrant.app_types import AppType
from evergrant.broker.apps import apps as use_cases
from evergrant.broker.apps.definition import AppDefinition, definition_as_stored
from evergrant.broker.apps.provider_client import callback_url
from evergrant.broker.apps.templates import definition_of, find_template
from evergrant.broker.apps.variables import app_variable_problems, tidied
from evergrant.broker.connections.deletion import delete_app
from evergrant.broker.runtime.broker import Broker
from evergrant.catalog.loader import load_catalogue
from evergrant.cli.next_steps import next_steps
from evergrant.cli.running import (
    PASTED,
    json_option,
    print_rows,
    project_option,
    run,
    settings_for_commands,
    the_project,
)
from evergrant.db import OutboundApp
from evergrant.errors import InvalidValue
from evergrant.pasted import trimmed

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group()
def apps() -> None:
    """Outbound apps: the OAuth clients you registered with providers."""


def _summary(broker: Broker, app: OutboundApp) -> dict[str, Any]:
    return {
        "id": app.id,
        "name": app.name,
        "clientId": app.client_id,
        "health": app.unhealthy_reason or "ok",
        "callbackUrl": callback_url(broker, app) if AppType(app.app_type).is_consented else "",
    }


secret_option = click.option(
    "--client-secret",
    envvar="CLIENT_SECRET",
    help="From the provider. Better asked for, or given as CLIENT_SECRET, than typed into the shell's history.",
)
signing_key_option = click.option(
    "--signing-key",
    type=click.File(),
    help="A file with the private key that signs its assertions and tokens, in PEM or as a JWK.",
)


api_base_url_option = click.option(
    "--api-base-url",
    default=None,
    type=PASTED,
    help="Where calls to its API go, instead of the template's; '' for that.",
)
api_further_option = click.option(
    "--api-further", multiple=True, type=PASTED, help="NAME=URL: a further base of its API. Repeatable; all of them."
)
api_header_option = click.option(
    "--api-header",
    "api_headers",
    multiple=True,
    type=PASTED,
    help="NAME=VALUE that calls carry. Repeatable; all of them.",
)
api_forbidden_option = click.option(
    "--api-forbidden",
    multiple=True,
    type=PASTED,
    help="A call that nobody makes: 'POST /x/**'. Repeatable; all of them.",
)


def api_options(command: Command) -> Command:
    """Let a command set where calls to an app's API go, and what they carry."""
    for option in (api_forbidden_option, api_header_option, api_further_option, api_base_url_option):
        command = option(command)
    return command


def _api_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Take those out of a command's options, and return them as a definition has them; without what is not given."""
    base, forbidden = fields.pop("api_base_url"), list(fields.pop("api_forbidden"))
    given: dict[str, Any] = {} if base is None else {"api_base_url": base}
    for name, option in (("api_further", "--api-further"), ("api_headers", "--api-header")):
        if texts := fields.pop(name):
            given[name] = dict(_variable(text, option) for text in texts)
    return given | ({"api_forbidden": forbidden} if forbidden else {})


@apps.command("list")
@project_option
@json_option
def list_(project_id: str | None, as_json: bool) -> None:
    """List a project's apps, with the redirect URI to register at each provider."""

    async def _list(broker: Broker) -> list[dict[str, Any]]:
        found = await use_cases.list_apps(broker, await the_project(broker, project_id))
        return [_summary(broker, app) for app in found]

    print_rows(run(_list), as_json=as_json)


@apps.command()
@project_option
@click.argument("app_id", default="", type=PASTED)
@click.option(
    "--template",
    "template_id",
    default="",
    type=PASTED,
    help="Make it from this template ('evergrant templates list').",
)
@click.option(
    "--variable", "variables", multiple=True, type=PASTED, help="NAME=VALUE, which the template asks for. Repeatable."
)
@click.option("--name", default="", type=PASTED, help="Shown to users. May be left out with --template.")
@click.option("--client-id", default="", type=PASTED, help="From the provider. May follow: 'evergrant apps update'.")
@secret_option
@signing_key_option
@click.option(
    "--discovery-url", default="", type=PASTED, help="The provider's issuer or metadata URL; fills the endpoints."
)
@click.option("--authorization-url", default="", type=PASTED, help="The provider's authorization endpoint.")
@click.option("--token-url", default="", type=PASTED, help="The provider's token endpoint.")
@click.option("--scope", "default_scopes", multiple=True, type=PASTED, help="A default scope. May be repeated.")
@click.option(
    "--redirect-url", "default_redirect_url", default="", type=PASTED, help="Where the browser goes after connecting."
)
@api_options
@json_option
def create(
    project_id: str | None,
    app_id: str,
    template_id: str,
    variables: tuple[str, ...],
    client_secret: str | None,
    signing_key: TextIO | None,
    as_json: bool,
    **fields: Any,
) -> None:
    """Create an app, from a template or by its URLs. Everything else about it is set through the API.

    With --template, APP_ID is the template's unless it is given. The provider wants to know the app's redirect URI
    before it gives a client id: leave that out at first, and add it with 'evergrant apps update'.
    """
    # `fields` are the options that an app's definition has under the same names.
    if not template_id and not (app_id and fields["name"]):
        raise click.UsageError("give APP_ID and --name, or --template")
    values, api = dict(_variable(text) for text in variables), _api_fields(fields)
    definition, template = AppDefinition(name=""), None
    if template_id:
        template = find_template(load_catalogue(settings_for_commands().catalog_dir), template_id)
        definition = definition_of(template)
    values = tidied(template, values)
    if problems := app_variable_problems(template, values):  # before anybody has typed a secret
        raise InvalidValue.of(*problems)
    secret = SecretStr(_secret(client_secret) if fields["client_id"] else "")
    given = {**fields, "id": app_id or template_id, "client_secret": secret, "variables": values, **api}
    if signing_key is not None:
        given["signing_key"] = SecretStr(signing_key.read())
    definition = replace(definition, **{name: value for name, value in given.items() if value})

    async def _create(broker: Broker) -> tuple[dict[str, Any], list[str]]:
        project = await the_project(broker, project_id)
        app = await use_cases.create_app(broker, project, definition, now=clock.now())
        return _summary(broker, app), next_steps(app, template, callback_url(broker, app))

    summary, steps = run(_create)
    click.echo(json.dumps(summary) if as_json else "\n".join([f"Created {summary['id']}. {steps[0]}", *steps[1:]]))


def _secret(given: str | None) -> str:
    return trimmed(given if given is not None else str(click.prompt("Client secret", hide_input=True)))


@apps.command()
@project_option
@click.argument("app_id", type=PASTED)
@click.option("--client-id", default="", type=PASTED, help="From the provider; its secret is asked for.")
@secret_option
@signing_key_option
@click.option(
    "--own-callback", is_flag=True, help="Leave the callback address that apps from before share; there is no way back."
)
@click.option(
    "--revoke-replaced/--keep-replaced",
    default=None,
    help="Whether a consent that the same person's newer one replaces is revoked. Many providers end both then.",
)
@api_options
@json_option
def update(
    project_id: str | None,
    app_id: str,
    client_id: str,
    client_secret: str | None,
    signing_key: TextIO | None,
    own_callback: bool,
    revoke_replaced: bool | None,
    as_json: bool,
    **fields: Any,
) -> None:
    """Give an app your client or key at its provider, a callback address or an API, or say what is revoked.

    Before --own-callback, register the address that 'evergrant doctor' shows at the provider, beside the present one.
    """
    changes = _api_fields(fields)
    if not (client_id or signing_key or own_callback or revoke_replaced is not None or changes):
        raise click.UsageError(
            "give --client-id, --signing-key, --own-callback, --revoke-replaced, --keep-replaced or an --api option"
        )
    if own_callback:
        changes["own_callback"] = True
    if revoke_replaced is not None:
        changes["revoke_replaced"] = revoke_replaced
    if signing_key is not None:
        changes["signing_key"] = SecretStr(signing_key.read())
    if client_id:
        changes |= {"client_id": client_id, "client_secret": SecretStr(_secret(client_secret))}

    async def _update(broker: Broker) -> tuple[dict[str, Any], str]:
        project = await the_project(broker, project_id)
        stored = definition_as_stored(await use_cases.load_app(broker, project, app_id))
        definition = replace(stored, **changes)
        app = await use_cases.update_app(broker, project, definition, by=None, now=clock.now())
        return _summary(broker, app), app.token_url

    summary, token_url = run(_update)
    if as_json:
        click.echo(json.dumps(summary))
    else:
        click.echo(f"{summary['id']}  updated.")
        if summary["callbackUrl"]:
            click.echo(f"Its redirect URI at the provider is\n{summary['callbackUrl']}")
        if client_id:
            click.echo(f"Its client secret goes to {token_url}")


def _variable(text: str, option: str = "--variable") -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter("write NAME=VALUE", param_hint=option)
    return trimmed(name), trimmed(value)


@apps.command()
@project_option
@click.argument("app_id")
@click.confirmation_option(prompt="Delete the app and everything that was connected through it?")
def delete(project_id: str | None, app_id: str) -> None:
    """Delete an app and everything that was connected through it."""

    async def _delete(broker: Broker) -> None:
        await delete_app(broker, await the_project(broker, project_id), app_id, by=None, now=clock.now())

    run(_delete)
    click.echo(f"{app_id}  deleted")
