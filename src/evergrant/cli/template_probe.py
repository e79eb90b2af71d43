"""The command `evergrant templates probe`: is a template's API where it says, and does its check tell anything?"""

import asyncio
import sys
from dataclasses import replace

import click

from evergrant import placeholders
from evergrant.broker.apps.api_call import call_of, expected_of
from evergrant.broker.apps.templates import find_template
from evergrant.broker.apps.variables import known_values
from evergrant.catalog.loader import load_catalogue
from evergrant.catalog.template import Template
from evergrant.cli.running import settings_for_commands
from evergrant.errors import GrantRefused, UpstreamError
from evergrant.oauth2.api_check import ApiCall, check_call
from evergrant.oauth2.transport import Http, open_http

_MADE_UP = "evergrant-probe"


@click.command()
@click.argument("template_ids", nargs=-1, required=True)
def probe(template_ids: tuple[str, ...]) -> None:
    """Make the check call of these templates without a credential: it must be refused. The exit code is 1 if not.

    Variables have their defaults and examples, so that an address made of these may be nobody's.
    """
    settings = settings_for_commands()
    catalogue = load_catalogue(settings.catalog_dir)
    wanted = [find_template(catalogue, template_id) for template_id in template_ids]

    async def _run() -> list[tuple[bool, str]]:
        async with open_http(settings.egress_allow) as http:
            return [await _probed(http, template) for template in wanted]

    found = asyncio.run(_run())
    for template, (good, text) in zip(wanted, found, strict=True):
        click.echo(f"{'good' if good else 'WRONG'}  {template.id}: {text}")
    sys.exit(0 if all(good for good, _ in found) else 1)


async def _probed(http: Http, template: Template) -> tuple[bool, str]:
    if not template.api.check:
        return False, "It has no check: add one to [api]."
    try:
        status = await check_call(http, _without_credential(template), expected_of(template.api), who=template.name)
    except GrantRefused as error:
        return True, f"It refuses who has no credential ({error.provider_error})."
    except UpstreamError as error:
        return False, error.message
    return False, f"It answers {status} to anybody: choose a check that needs a credential."


def _without_credential(template: Template) -> ApiCall:
    samples = {name: each.default or each.example for name, each in template.variables.items()}
    fields = dict.fromkeys(template.fields, _MADE_UP)
    values = {**samples, **known_values(template, samples, samples), **fields, "token": _MADE_UP}
    headers = {name: text for name, text in template.api.headers.items() if not placeholders.names_in(text)}
    return replace(call_of(template, values), headers=headers, query={})
