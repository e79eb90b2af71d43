"""The command line, run in this process."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

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
def evergrant(
    safe_server: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Evergrant]:
    """Run a command with these settings, and nothing else in the environment."""
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
