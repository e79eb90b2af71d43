"""Reads the file of `evergrant apply`: its lines, its secrets by reference, and what is wrong with it, by line.

An entry has the fields that the API's call has which makes the same thing, by the same names.
"""

import difflib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError
from pydantic.alias_generators import to_camel

from evergrant.broker.apply.wanted import WantedProject, WantedThing
from evergrant.cli.yaml_lines import Lines, read_yaml
from evergrant.web.api.app_wire import AppFields, named_fields
from evergrant.web.api.policies import CreatePolicy
from evergrant.web.api.projects import UpdateProject
from evergrant.web.api.trusted_issuers import CreateIssuer, IssuerLogin
from evergrant.web.api.webhooks import WebhookFields
from evergrant.web.api.wire import AppId, Flag, PastedText, SecretText, ShortText, StrictWireModel
from evergrant.web.errors import invalid_request

Problems = list[tuple[str, str]]
Model = TypeVar("Model", bound=StrictWireModel)


class AppEntry(AppFields):
    """An app."""

    id: AppId
    name: PastedText = ""


class IssuerEntry(CreateIssuer):
    """A trusted issuer."""

    audience: ShortText = ""


class WebhookEntry(WebhookFields):
    """A webhook."""

    enabled: Flag = True
    secret: SecretText | None = None


class ApplyFile(StrictWireModel):
    """The whole file. A section that is left out is not looked at."""

    project: UpdateProject | None = None
    apps: list[AppEntry] | None = Field(default=None, max_length=10_000)
    trusted_issuers: list[IssuerEntry] | None = None
    policies: list[CreatePolicy] | None = Field(default=None, max_length=10_000)
    webhooks: list[WebhookEntry] | None = None


SECTIONS: Mapping[str, type[StrictWireModel]] = {
    "project": UpdateProject,
    "apps": AppEntry,
    "trustedIssuers": IssuerEntry,
    "policies": CreatePolicy,
    "webhooks": WebhookEntry,
}
_MUST_REFER = {
    "apps": ("clientSecret", "signingKey"),
    "trustedIssuers.login": ("clientSecret",),
    "webhooks": ("secret",),
}
MOST_SECRET = 100_000
"""Characters that are read of a file with a secret: there are files without an end."""
_MAY_REFER = {"webhooks": ("url",)}
_REFERENCE = "write env:NAME or file:PATH, and keep the secret there: this file is no place for one"


def read_file(path: Path) -> tuple[WantedProject, Lines]:
    """Return what a file wants, and where in it each thing stands.

    Raises:
        InvalidValue: the file or something in it cannot be used; the message names file, line and field.
    """
    data, lines = read_yaml(path)
    problems = list(lines.problems)
    if not isinstance(data, dict):
        raise lines.error([("", f"begin with a section: {', '.join(SECTIONS)}")])
    problems += _unknown(data)
    problems += _refer(data, path.parent)
    told = {path for path, _ in problems}
    try:
        file = ApplyFile.model_validate(data)
    except ValidationError as error:
        wrong = invalid_request(error.errors(include_url=False, include_input=False)).details["fields"]
        problems += [(one["field"], _in_yaml(one["problem"])) for one in wrong if one["field"] not in told]
    if problems:
        raise lines.error(problems)
    return _wanted(file), lines


def _in_yaml(problem: str) -> str:
    """Say it for somebody who writes YAML, where a bare 123 or yes is no text."""
    if problem == "input should be a valid string":
        return "is text: put it into quotes"
    return {"input should be a valid list": "is a list: begin each line of it with '- '"}.get(problem, problem)


def _entries(data: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any], type[StrictWireModel]]]:
    """Yield each mapping whose fields are known: its path, its kind, itself, and what it can have."""
    for section, model in SECTIONS.items():
        found = data.get(section)
        many = found if isinstance(found, list) else [found]
        for number, entry in enumerate(many):
            if isinstance(entry, dict):
                path = f"{section}[{number}]" if isinstance(found, list) else section
                yield path, section, entry, model
                if section == "trustedIssuers" and isinstance(entry.get("login"), dict):
                    yield f"{path}.login", "trustedIssuers.login", entry["login"], IssuerLogin


def _unknown(data: Mapping[str, Any]) -> Problems:
    problems = [(str(name), _no_such(name, list(SECTIONS))) for name in data if name not in SECTIONS]
    for path, _, entry, model in _entries(data):
        known = [to_camel(name) for name in model.model_fields]
        problems += [(f"{path}.{name}", _no_such(name, known)) for name in entry if name not in known]
    return problems


def _no_such(name: Any, known: list[str]) -> str:
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"use {', '.join(known)}"
    return f"there is no such field; {hint}"


def _refer(data: Mapping[str, Any], folder: Path) -> Problems:
    """Put what references lead to in their place, in `data`."""
    problems: Problems = []
    done = set[int]()
    for path, kind, entry, _ in _entries(data):
        if id(entry) in done:  # an alias repeats the same mapping
            continue
        done.add(id(entry))
        for name in (*_MUST_REFER.get(kind, ()), *_MAY_REFER.get(kind, ())):
            text = entry.get(name)
            if not text:  # an empty secret is none
                continue
            scheme, colon, where = str(text).partition(":")
            if colon and scheme in ("env", "file"):
                try:
                    entry[name] = _read(scheme, where, folder)
                except ValueError as error:
                    problems.append((f"{path}.{name}", str(error)))
            elif name in _MUST_REFER.get(kind, ()):
                problems.append((f"{path}.{name}", _REFERENCE))
    return problems


def _read(scheme: str, where: str, folder: Path) -> str:
    if scheme == "env":
        if not os.environ.get(where):
            raise ValueError(f"the environment has no {where}: set it")
        return os.environ[where]
    try:
        with (folder / where).open(encoding="utf-8") as file:
            text = file.read(MOST_SECRET + 1)
    except OSError as error:
        raise ValueError(f"{where} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{where} is no text in UTF-8") from None
    if not text.strip():
        raise ValueError(f"{where} is empty")
    if len(text) > MOST_SECRET:
        raise ValueError(f"{where} is longer than any secret: name a file that holds it alone")
    return text


def _wanted(file: ApplyFile) -> WantedProject:
    return WantedProject(
        project=WantedThing("project", _named(file.project)) if file.project is not None else None,
        apps=_numbered("apps", file.apps, lambda entry: named_fields(entry, entry.id)),
        issuers=_numbered("trustedIssuers", file.trusted_issuers, _issuer),
        policies=_numbered("policies", file.policies, _named),
        webhooks=_numbered("webhooks", file.webhooks, _named),
    )


def _numbered(
    section: str, models: Sequence[Model] | None, given: Callable[[Model], Mapping[str, Any]]
) -> list[WantedThing] | None:
    if models is None:
        return None
    return [WantedThing(f"{section}[{number}]", given(model)) for number, model in enumerate(models)]


def _named(model: StrictWireModel) -> dict[str, Any]:
    """Return the fields that an entry names, in the order in which the API lists them."""
    return {name: getattr(model, name) for name in type(model).model_fields if name in model.model_fields_set}


def _issuer(entry: IssuerEntry) -> dict[str, Any]:
    given = _named(entry)
    login = given.pop("login", None)
    return given | ({f"login_{name}": value for name, value in _named(login).items()} if login is not None else {})
