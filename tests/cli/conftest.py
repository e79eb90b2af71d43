"""The command line, run in this process."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from evergrant.broker.operations import doctor_postgresql
from evergrant.cli import main
from evergrant.settings import Settings
from tests.infra.serving import environment_of


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Evergrant = Callable[..., Done]


@pytest.fixture
def evergrant(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Evergrant]:
    """Run a command with these settings, and nothing else in the environment."""
    asked = doctor_postgresql.asked

    async def asked_of_a_safe_server(connection: AsyncConnection) -> Any:
        on = dict.fromkeys((*doctor_postgresql.MUST_BE_ON, "autovacuum"), "on")  # the tests' servers are fast instead
        return SimpleNamespace(**{**(await asked(connection))._mapping, **on})

    monkeypatch.setattr(doctor_postgresql, "asked", asked_of_a_safe_server)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def run(settings: Settings | dict[str, str], *arguments: str) -> Done:
        environment = settings if isinstance(settings, dict) else environment_of(settings)
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["evergrant", *arguments])
            capsys.readouterr()
            try:
                main()
                code: Any = 0
            except SystemExit as end:
                code = end.code
        out, err = capsys.readouterr()
        return Done(int(code or 0), out, err)

    yield run
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def project(evergrant: Evergrant, settings: Settings) -> str:
    """The id of the first project."""
    return str(evergrant(settings, "init", "--json").json["projectId"])
