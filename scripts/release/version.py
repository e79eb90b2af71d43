"""A release's number: in every file that says it, in the change log, and in the tag.

    python -m scripts.release.version set 0.2.0      begin to work on 0.2.0, after 0.1.0 was tagged
    python -m scripts.release.version date           date this version's section of the change log, before the tag
    python -m scripts.release.version check v0.2.0   may this tag be this commit?

Nothing is written when something is wrong.
"""

import argparse
import datetime
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACES = {
    "pyproject.toml": r'^version = "(.+)"$',
    "src/evergrant/__init__.py": r'^__version__ = "(.+)"$',
    "clients/python/pyproject.toml": r'^version = "(.+)"$',
    "docker-compose.yml": r"^  image: evergrant:(.+)$",
    "docs/kubernetes.md": r"registry\.example\.com/evergrant:([^\s`]+)",
    "deploy/helm/*/Chart.yaml": r'^(?:version|appVersion): "?([^"\n]+)"?$',
}
"""By file, or pattern of files: what says the version there, which is its first group."""
CHANGES = "CHANGELOG.md"
PREVIOUS = "scripts/release/previous.toml"
UNRELEASED = "unreleased"
_NUMBER = re.compile(r"\d+\.\d+\.\d+")
_SECTION = re.compile(r"^## \[(?P<version>[^]]+)\] - (?P<date>.+)$", re.MULTILINE)


class Refused(Exception):
    """Something is not as a release needs it."""


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT, help="the checkout")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("set").add_argument("version")
    verbs.add_parser("date")
    verbs.add_parser("check").add_argument("tag")
    options = parser.parse_args(arguments)
    try:
        if options.verb == "set":
            set_version(options.folder, options.version)
        elif options.verb == "date":
            date_section(options.folder, datetime.datetime.now(datetime.UTC).date())
        else:
            check_tag(options.folder, options.tag)
    except Refused as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def version_of(folder: Path) -> str:
    """Return the version of a checkout.

    Raises:
        Refused: two files say different ones.
    """
    said = {text: path for path, text in _said(folder)}
    if len(said) != 1:
        raise Refused(f"several versions: {', '.join(f'{path} says {text}' for text, path in sorted(said.items()))}")
    return next(iter(said))


def set_version(folder: Path, version: str) -> None:
    """Write a later version into every file, begin its section, and name the release before it for upgrade drills.

    Raises:
        Refused: it is no version, not a later one, or the version before was not released.
    """
    before = version_of(folder)
    if not _NUMBER.fullmatch(version) or _numbers(version) <= _numbers(before):
        raise Refused(f"{version} is no version after {before}: write one like 1.2.3")
    changes = (folder / CHANGES).read_text(encoding="utf-8")
    newest = _newest_section(changes)
    if (newest["version"], newest["date"] == UNRELEASED) != (before, False):
        raise Refused(f"{CHANGES}: {before} has no date, so it is not released: date it and tag it first")
    for pattern, line in PLACES.items():
        for path in folder.glob(pattern):
            text = path.read_text(encoding="utf-8")
            path.write_text(re.sub(line, lambda m: m[0].replace(m[1], version), text, flags=re.MULTILINE), "utf-8")
    section = f"## [{version}] - {UNRELEASED}\n\n"
    (folder / CHANGES).write_text(changes[: newest.start()] + section + changes[newest.start() :], encoding="utf-8")
    previous = (folder / PREVIOUS).read_text(encoding="utf-8")
    previous = re.sub(r'^revision = ".*"', f'revision = "{_last_migration(folder)}"', previous, flags=re.MULTILINE)
    previous = re.sub(r'^commit = ".*"', f'commit = "v{before}"', previous, flags=re.MULTILINE)
    (folder / PREVIOUS).write_text(previous, encoding="utf-8")


def date_section(folder: Path, today: datetime.date) -> None:
    """Give this version's section of the change log its date.

    Raises:
        Refused: it has one, there is none, or it says nothing.
    """
    version = version_of(folder)
    changes = (folder / CHANGES).read_text(encoding="utf-8")
    newest = _newest_section(changes)
    if (newest["version"], newest["date"]) != (version, UNRELEASED):
        raise Refused(f"{CHANGES}: the first section is {newest[0]!r}, and should be '## [{version}] - {UNRELEASED}'")
    _require_text(changes, newest)
    dated = changes[: newest.start("date")] + today.isoformat() + changes[newest.end("date") :]
    (folder / CHANGES).write_text(dated, encoding="utf-8")


def check_tag(folder: Path, tag: str) -> None:
    """Make sure that a tag may name what is in a folder.

    Raises:
        Refused: it is another version's, or the change log does not speak of it with a date.
    """
    version = version_of(folder)
    if tag != f"v{version}":
        raise Refused(f"the tag {tag} is not the version's: this is {version}, so its tag is v{version}")
    changes = (folder / CHANGES).read_text(encoding="utf-8")
    newest = _newest_section(changes)
    if newest["version"] != version or not re.fullmatch(r"\d{4}-\d\d-\d\d", newest["date"]):
        raise Refused(f"{CHANGES}: the first section is {newest[0]!r}, and should be {version} with its date")
    _require_text(changes, newest)


def _said(folder: Path) -> Iterator[tuple[str, str]]:
    for pattern, line in PLACES.items():
        for path in sorted(folder.glob(pattern)):
            found = re.findall(line, path.read_text(encoding="utf-8"), flags=re.MULTILINE)
            if not found:
                raise Refused(f"{path.relative_to(folder)} does not say its version")
            yield from ((str(path.relative_to(folder)), text) for text in found)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _newest_section(changes: str) -> re.Match[str]:
    if (found := _SECTION.search(changes)) is None:
        raise Refused(f"{CHANGES} has no section: write '## [1.2.3] - {UNRELEASED}'")
    return found


def _require_text(changes: str, section: re.Match[str]) -> None:
    after = _SECTION.search(changes, section.end())
    if not changes[section.end() : after.start() if after else None].strip():
        raise Refused(f"{CHANGES}: the section of {section['version']} says nothing")


def _last_migration(folder: Path) -> str:
    texts = [path.read_text(encoding="utf-8") for path in (folder / "migrations/versions").glob("*.py")]
    revisions = [re.findall(r'^revision: str = "(\d{4})"$', text, re.MULTILINE) for text in texts]
    return str(max(revision for found in revisions for revision in found))


if __name__ == "__main__":
    sys.exit(main())
