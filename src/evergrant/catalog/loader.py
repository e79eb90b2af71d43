"""Reads the catalogue: `providers/*.toml` and `dcr_presets/*.toml`, one file each, whose name is the entry's id."""

import functools
import importlib.resources
import tomllib
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from evergrant.catalog.template import DcrPreset, Template
from evergrant.errors import ConfigurationError

Entry = TypeVar("Entry", bound=BaseModel)


@functools.cache
def templates() -> Mapping[str, Template]:
    """Return the catalogue by id, in the order of the ids. Read once.

    Raises:
        ConfigurationError: a file is malformed; the message names it and every field that is wrong.
    """
    return {file.name.removesuffix(".toml"): load(file, Template) for file in _files("providers")}


@functools.cache
def dcr_presets() -> Mapping[str, DcrPreset]:
    """Return the presets for dynamic registration by id, in the order of the ids. Read once.

    Raises:
        ConfigurationError: as `templates`.
    """
    return {file.name.removesuffix(".toml"): load(file, DcrPreset) for file in _files("dcr_presets")}


def _files(folder: str) -> list[Traversable]:
    found = (importlib.resources.files("evergrant.catalog") / folder).iterdir()
    return sorted((file for file in found if file.name.endswith(".toml")), key=lambda file: file.name)


def load(file: Traversable, model: type[Entry]) -> Entry:
    """Read one file as an entry of this kind.

    Raises:
        ConfigurationError: it is malformed.
    """
    try:
        members = tomllib.loads(file.read_text(encoding="utf-8"))
        return model.model_validate({**members, "id": file.name.removesuffix(".toml")})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"catalogue, {file.name}: {error}") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, entry['loc'])) or 'all'}: {entry['msg']}" for entry in error.errors())
        raise ConfigurationError(f"catalogue, {file.name}: {problems}") from None
