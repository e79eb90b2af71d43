"""Reads the catalogue: `providers/*.toml`, the operator's own folder beside it, and `dcr_presets/*.toml`.

A file of providers describes one, whose id is the file's name; or a family: what its `[[templates]]` share stands at
the top, and each adds its id and what is its own.
"""

import dataclasses
import difflib
import functools
import importlib.resources
import pickle
from collections.abc import Iterator, Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

import tomli
from pydantic import ValidationError

from evergrant.catalog.api import Api, Credential, ExpiredAnswer, RateLimit
from evergrant.catalog.catalogue import Catalogue
from evergrant.catalog.field import CredentialField
from evergrant.catalog.field_types import StrictModel
from evergrant.catalog.retirement import Retirement
from evergrant.catalog.template import DcrPreset, Template
from evergrant.catalog.validation import problems_of
from evergrant.catalog.variable import Variable
from evergrant.errors import ConfigurationError
from evergrant.oauth2.quirks import ContextRequest, DeadAnswer, ResponseShape, RevocationStyle, TokenExchange
from evergrant.oauth2.source_types import Assertion, LoginStep

Model = TypeVar("Model", bound=StrictModel)
Members = dict[str, Any]


def load_catalogue(folder: Path | None = None) -> Catalogue:
    """Return the templates: the built-in ones, and those of an operator's `folder`, each of which is checked at once.

    An entry of the folder replaces the built-in one of the same id. With `extends = "<id>"` it begins with what that
    built-in one says, as the members of a family begin with what they share.

    Raises:
        ConfigurationError: a file is malformed, or the folder cannot be read; the message names file and field.
    """
    if folder is None:
        return _built_in()
    if not folder.is_dir():
        raise ConfigurationError(f"EVERGRANT_CATALOG_DIR: {folder} is not a folder: make it, or unset the variable")
    found = _read(folder, _built_in_members())
    own = {key: _template(where, members) for key, (where, members) in found.items()}
    built_in = _built_in()
    makers = {key: functools.partial(built_in.__getitem__, key) for key in built_in}
    return Catalogue(
        {**makers, **{key: functools.partial(own.__getitem__, key) for key in own}},
        with_aliases=[*built_in.with_aliases, *own],
    )


def check_file(path: Path) -> list[Template]:
    """Return the templates in one file of an operator's.

    Raises:
        ConfigurationError: it is malformed; the message names file and field.
    """
    bases = _built_in_members()
    found = {members["id"]: (where, _extended(where, members, bases)) for where, members in _entries(path)}
    return [_template(where, members) for where, members in found.values()]


@functools.cache
def dcr_presets() -> Mapping[str, DcrPreset]:
    """Return the presets for dynamic registration by id, in the order of the ids. Read once.

    Raises:
        ConfigurationError: as `load_catalogue`.
    """
    return {
        _id_of(f): _entry(f.name, {**_toml(f), "id": _id_of(f)}, DcrPreset) for f in toml_files(_package("dcr_presets"))
    }


@functools.cache
def _built_in() -> Catalogue:
    # Whether their fields fit together is checked by tests and `templates lint`, not by each start.
    found = _read(_package("providers"), {})
    return Catalogue(
        {key: functools.partial(_unpacked, where, pickle.dumps(members)) for key, (where, members) in found.items()},
        with_aliases=[key for key, (_, members) in found.items() if "scope_aliases" in members],
    )


def _unpacked(where: str, packed: bytes) -> Template:
    """Return an entry. Most are never asked for, and take a third of the memory until they are."""
    return _entry(where, pickle.loads(packed), Template)  # noqa: S301 - this process has packed it


def _built_in_members() -> Mapping[str, Members]:
    return {key: members for key, (_, members) in _read(_package("providers"), {}).items()}


def _package(folder: str) -> Traversable:
    return importlib.resources.files("evergrant.catalog") / folder


def toml_files(folder: Traversable) -> list[Traversable]:
    """Return a folder's files of templates, in the order of their ids. Hidden ones, an editor's perhaps, are none."""
    found = (file for file in folder.iterdir() if file.name.endswith(".toml") and not file.name.startswith("."))
    return sorted(found, key=_id_of)


def _id_of(file: Traversable) -> str:
    return file.name.removesuffix(".toml")


def _toml(file: Traversable) -> Members:
    try:
        return tomli.loads(file.read_text(encoding="utf-8"))
    except (tomli.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigurationError(f"catalogue, {file.name}: {error}") from None


def _read(folder: Traversable, bases: Mapping[str, Members]) -> dict[str, tuple[str, Members]]:
    """Return every entry of a folder by id: where it stands, and its members with what it inherits."""
    found: dict[str, tuple[str, Members]] = {}
    for file in toml_files(folder):
        for where, members in _entries(file):
            key = members["id"]
            if key in found:
                raise ConfigurationError(f"catalogue, {where}: id: {key!r} is taken by {found[key][0]}: choose another")
            found[key] = where, _extended(where, members, bases)
    return found


def _entries(file: Traversable) -> Iterator[tuple[str, Members]]:
    shared = _toml(file)
    family = shared.pop("templates", None)
    if family is None:
        if shared.get("id", _id_of(file)) != _id_of(file):
            raise ConfigurationError(f"catalogue, {file.name}: id: is the file's name: rename the file")
        yield file.name, {**shared, "id": _id_of(file)}
        return
    if not isinstance(family, list) or not all(isinstance(own, dict) for own in family):
        raise ConfigurationError(f"catalogue, {file.name}: templates: write each as [[templates]]")
    for number, own in enumerate(family, start=1):
        if not isinstance(own.get("id"), str):
            raise ConfigurationError(f"catalogue, {file.name}: templates, number {number}: id: is required")
        yield f"{file.name} [{own['id']}]", _laid_over(shared, own)


def _extended(where: str, members: Members, bases: Mapping[str, Members]) -> Members:
    base = members.pop("extends", None)
    if base is None:
        return members
    if base not in bases:
        raise ConfigurationError(f"catalogue, {where}: extends: there is no built-in {base!r}{_meant(base, bases)}")
    return _laid_over(bases[base], members)


def _laid_over(base: Members, own: Members) -> Members:
    """Lay one entry over another. A variable of the base that is replaced by "" is gone."""
    members = _merged(base, own)
    if isinstance(base.get("variables"), dict) and isinstance(members.get("variables"), dict):
        gone = {name for name in base["variables"] if members["variables"].get(name) == ""}
        members["variables"] = {name: value for name, value in members["variables"].items() if name not in gone}
    return members


def _merged(base: Members, own: Members) -> Members:
    """Join tables, key by key; everything else is replaced."""
    joined = {key: _merged(base[key], own[key]) for key in base.keys() & own.keys() if _tables(base[key], own[key])}
    return {**base, **own, **joined}


def _tables(*values: object) -> bool:
    return all(isinstance(value, dict) for value in values)


def _template(where: str, members: Members) -> Template:
    template = _entry(where, members, Template)
    if problems := problems_of(template):
        raise ConfigurationError(f"catalogue, {where}: {'; '.join(problems)}")
    return template


def _entry(where: str, members: Members, model: type[Model]) -> Model:
    try:
        return model.model_validate(members)
    except ValidationError as error:
        problems = "; ".join(_problem(dict(found)) for found in error.errors(include_url=False))
        raise ConfigurationError(f"catalogue, {where}: {problems}") from None


def _problem(found: Members) -> str:
    message = str(found["msg"]).removeprefix("Value error, ")
    path = ".".join(str(part) for part in found["loc"])
    if found["type"] in ("extra_forbidden", "unexpected_keyword_argument"):  # of a model, of a dataclass
        message = f"there is no such field{_meant(str(found['loc'][-1]), _FIELDS)}"
    elif found["type"] == "missing":
        message = "is required"
    return f"{path}: {message}" if path else message


def _meant(word: object, known: Mapping[str, object] | frozenset[str]) -> str:
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


_MODELS = (Template, Variable, Retirement, CredentialField, Api, Credential, ExpiredAnswer, RateLimit, DcrPreset)
_SHAPES = (ResponseShape, DeadAnswer, TokenExchange, ContextRequest, RevocationStyle, Assertion, LoginStep)
_FIELDS = frozenset(
    {field.alias or name for model in _MODELS for name, field in model.model_fields.items()}
    | {field.name for shape in _SHAPES for field in dataclasses.fields(shape)}
    | {"extends", "templates"}
)
"""Every name that a file may use, for saying which was meant."""
