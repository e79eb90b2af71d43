"""The commands `evergrant templates`: the app library, and a look at a file for it."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from evergrant.app_types import AppType
from evergrant.broker.apps.templates import find_template, search_templates
from evergrant.catalog.field import CredentialField
from evergrant.catalog.loader import check_file, load_catalogue
from evergrant.catalog.template import Template
from evergrant.catalog.variable import Variable
from evergrant.cli.running import json_option, print_rows, settings_for_commands
from evergrant.cli.template_probe import probe


@click.group()
def templates() -> None:
    """The app library: providers that evergrant knows, and your own entries in EVERGRANT_CATALOG_DIR."""


templates.add_command(probe)


@templates.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List all templates."""
    _print(search_templates(load_catalogue(settings_for_commands().catalog_dir), ""), as_json=as_json)


@templates.command()
@click.argument("words", nargs=-1, required=True)
@json_option
def search(words: tuple[str, ...], as_json: bool) -> None:
    """List the templates that have all WORDS in their id, name or category."""
    _print(search_templates(load_catalogue(settings_for_commands().catalog_dir), " ".join(words)), as_json=as_json)


@templates.command()
@click.argument("template_id")
@json_option
def show(template_id: str, as_json: bool) -> None:
    """Show what a template says: all that its file does, and what is usual where that says nothing."""
    template = find_template(load_catalogue(settings_for_commands().catalog_dir), template_id)
    members = template.model_dump(mode="json", by_alias=True, exclude_defaults=not as_json)
    if as_json:
        click.echo(json.dumps(members, indent=2))
        return
    members |= {
        "app_type": f"{template.app_type} ({template.app_type.in_words})",
        "variables": {name: _asked(variable) for name, variable in template.variables.items()},
        "fields": {name: _entered(field) for name, field in template.fields.items()},
    }
    width = max(map(len, members))
    for name, value in members.items():
        if value:
            click.echo(f"{name:<{width}}  " + _shown(value).replace("\n", f"\n{'':<{width}}  "))


@templates.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def lint(file: Path) -> None:
    """Check a FILE of templates, before it goes to EVERGRANT_CATALOG_DIR. The exit code is 1 when it is wrong."""
    found = check_file(file)
    click.echo(f"good: {', '.join(_in_short(template) for template in found)}")


def _print(found: Iterable[Template], *, as_json: bool) -> None:
    rows: list[dict[str, Any]] = [
        {
            "id": template.id,
            "name": template.name,
            "category": template.category,
            "appType": template.app_type,
            "verification": template.verification,
            "reviewed": template.reviewed.isoformat() if template.reviewed else "",
            "retires": template.retirement.on.isoformat() if template.retirement else "",
            "variables": [name for name, v in template.variables.items() if v.is_asked_for],
            "fields": [name for name, field in template.fields.items() if field.is_asked_for],
        }
        for template in found
    ]
    print_rows(rows, as_json=as_json)


_WHO = {"app": "you give it", "user": "you give it, or whoever connects"}


def _asked(variable: Variable) -> str:
    """Say in one line where a variable's value comes from, and what it may be."""
    if variable.source == "variable":
        return f"{variable.title} (follows from {variable.from_})"
    who = _WHO.get(variable.source, f"comes from the {variable.source} answer")
    if variable.is_required and not variable.is_captured:
        who += ", required"
    kinds = [
        f"one of {', '.join(variable.enum)}" if variable.enum else "",
        f"{variable.default} if left out" if variable.default else "",
        f"like {variable.example}" if variable.example else "",
    ]
    return "; ".join([f"{variable.title} ({who})", *filter(None, kinds)])


def _entered(field: CredentialField) -> str:
    """Say in one line what whoever uploads credentials enters."""
    if not field.is_asked_for:
        return f"{field.title} (found in {field.inside})"
    kinds = ["required" if field.required else "may be left out", *(["a file"] if field.multiline else [])]
    said = [f"{field.title} ({', '.join(kinds)})", *filter(None, [field.hint])]
    return "; ".join([*said, *([f"like {field.example}"] if field.example else [])])


def _in_short(template: Template) -> str:
    """Name a template; of one that nobody connects in the browser, its kind and its fields too."""
    if template.app_type == AppType.OAUTH:
        return template.id
    names = [name for name, field in template.fields.items() if field.is_asked_for]
    return f"{template.id} ({': '.join([template.app_type.in_words, *([' + '.join(names)] if names else [])])})"


def _shown(value: Any) -> str:
    if isinstance(value, dict) and all(isinstance(member, str) for member in value.values()):
        return "\n".join(f"{name} = {text}" for name, text in value.items())
    if isinstance(value, list) and all(isinstance(member, str) for member in value):
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value, indent=2)
