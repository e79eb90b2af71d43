"""The systemd units: systemd understands them, and they start what there is."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from evergrant.settings import PREFIX, SECRETS, Settings
from tests.test_house import unknown_words

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/systemd"
UNITS = {path.name: path.read_text() for path in sorted(FOLDER.glob("*.service"))}
MOST_EXPOSED = 20
"""In tenths, as systemd counts from 0 to 10 what a unit could do: less than 2 it calls OK."""


def analyze(*words: str | Path) -> str:
    """Run systemd-analyze, which needs no running systemd for this, and return what it has to say."""
    command = shutil.which("systemd-analyze")
    if command is None:
        pytest.fail("There is no systemd-analyze: install Debian's package systemd.")
    ran = subprocess.run([command, *words], capture_output=True, text=True, timeout=60, check=False)
    return ran.stderr + (ran.stdout if ran.returncode else "")


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units, with the evergrant of this environment: systemd looks whether the program is there."""
    for name, text in UNITS.items():
        (tmp_path / name).write_text(text.replace("/opt/evergrant/bin", str(Path(sys.executable).parent)))
    return [tmp_path / name for name in UNITS]


def test_systemd_has_nothing_against_the_units(units: list[Path]) -> None:
    assert len(units) == 2
    assert analyze("verify", "--man=no", *units) == ""


def test_systemd_notices_a_misspelt_line(units: list[Path]) -> None:
    units[0].write_text(units[0].read_text().replace("ProtectSystem=", "ProtectSytem="))
    assert "ProtectSytem" in analyze("verify", "--man=no", units[0])


def test_the_units_may_do_next_to_nothing_to_the_machine(units: list[Path]) -> None:
    for unit in units:
        assert analyze("security", "--offline=yes", f"--threshold={MOST_EXPOSED}", unit) == ""


def lines_of(name: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", UNITS[name], flags=re.MULTILINE))


@pytest.mark.parametrize(
    ("name", "service"), [("evergrant.service", "evergrant"), ("evergrant-refresher.service", "refresher")]
)
def test_a_unit_runs_a_command_that_exists_and_waits_as_long_for_its_end_as_compose(name: str, service: str) -> None:
    unit = lines_of(name)
    assert unknown_words(unit["ExecStart"]) == []
    compose: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert f"{unit['TimeoutStopSec']}s" == compose["services"][service]["stop_grace_period"]
    assert unit["EnvironmentFile"] == "/etc/evergrant/evergrant.env"


def test_the_environment_file_sets_only_what_is_a_setting() -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    known |= {f"{PREFIX}{name.upper()}_FILE" for name in SECRETS}
    assert set(re.findall(r"^#?(\w+)=", (FOLDER / "evergrant.env").read_text(), flags=re.MULTILINE)) <= known
