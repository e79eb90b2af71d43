"""A release's number: one for every file, with a section of the change log and a tag that is its own."""

import datetime
import shutil
from pathlib import Path

import pytest

from scripts.release.previous import Previous, load_previous, unpack
from scripts.release.version import CHANGES, PLACES, PREVIOUS, check_tag, date_section, main, set_version, version_of

ROOT = Path(__file__).parents[1]
TODAY = datetime.date(2027, 1, 31)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files of which a release's number is made, where no version has been released."""
    names = [str(path.relative_to(ROOT)) for pattern in PLACES for path in ROOT.glob(pattern)]
    for name in (
        *names,
        PREVIOUS,
        *(f"migrations/versions/{path.name}" for path in ROOT.glob("migrations/versions/*.py")),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / CHANGES).write_text(f"# Changelog\n\n## [{version_of(ROOT)}] - unreleased\n\nThe first.\n")
    return tmp_path


def said(checkout: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that is refused, and changes nothing; return what it said."""
    before = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}
    assert main(["--folder", str(checkout), *arguments]) == 1
    assert {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()} == before
    return capsys.readouterr().err


def test_a_release_is_dated_and_tagged_and_the_next_one_begins(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = version_of(checkout)
    assert "should be" in said(checkout, capsys, "check", f"v{ours}")
    assert "not released" in said(checkout, capsys, "set", "99.0.0")
    date_section(checkout, TODAY)
    check_tag(checkout, f"v{ours}")
    assert f"its tag is v{ours}" in said(checkout, capsys, "check", "v99.0.0")
    assert "first section" in said(checkout, capsys, "date")
    assert "no version after" in said(checkout, capsys, "set", ours)
    set_version(checkout, "99.0.0")
    assert version_of(checkout) == "99.0.0"
    changes = (checkout / CHANGES).read_text()
    assert f"## [99.0.0] - unreleased\n\n## [{ours}] - 2027-01-31\n\nThe first." in changes
    last = max(path.name.split("_")[1] for path in ROOT.glob("migrations/versions/*.py"))
    written = (checkout / PREVIOUS).read_text()
    assert f'revision = "{last}"' in written
    assert f'commit = "v{ours}"' in written
    assert "says nothing" in said(checkout, capsys, "date")


def test_files_that_say_different_versions_are_named(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout / "src/evergrant/__init__.py").write_text('__version__ = "7.7.7"\n')
    assert "src/evergrant/__init__.py says 7.7.7" in said(checkout, capsys, "date")


def test_the_release_before_is_in_the_history_with_the_migration_that_is_said_of_it(tmp_path: Path) -> None:
    unpack(load_previous(), tmp_path)
    last = max(path.name.split("_")[1] for path in tmp_path.glob("migrations/versions/*.py"))
    assert last == load_previous().revision
    with pytest.raises(RuntimeError, match="git fetch --unshallow"):
        unpack(Previous(last, "v0.0.0-never"), tmp_path)
