"""The engine knows habits, not providers: only the catalogue and the table of hooks have their names."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.entries import read_entries

SOURCE = Path(__file__).parents[2] / "src" / "evergrant"
KNOWING = [SOURCE / "catalog", SOURCE / "oauth2" / "hooks.py"]
"""Who may name providers."""
ORDINARY = {
    *("active", "app", "box", "buffer", "close", "cursor", "display", "exact", "exist", "fastly", "help"),
    *("here", "hex", "iterable", "line", "make", "meta", "new", "one", "people", "power", "ramp", "read"),
    *("render", "reply", "square", "stack", "streak", "super", "tally", "threads", "together"),
}
"""Names of providers that are also words, or begin the name of a header that proxies add."""
EXAMPLES = {"discord", "google", "linear", "openai"}
"""What the examples of the API's documentation are about: only there, in `web` and in `practice`."""
WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")


def names() -> set[str]:
    """Return what providers are called, in one word each: by the ids and the names of the catalogue."""
    entries = read_entries()
    called = {entry_id.partition("-")[0] for entry_id in entries}
    called |= {re.sub(r"[^a-z0-9]", "", entry["name"].lower().split()[0]) for entry in entries.values()}
    return {name for name in called if len(name) > 1} - ORDINARY


def code_of(source: str) -> Iterator[str]:
    """Yield what a module's code consists of: names and texts, without comments and docstrings."""
    tree = ast.parse(source)
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node.value
        for field in ("id", "attr", "name", "arg", "module"):
            if isinstance(text := getattr(node, field, None), str):
                yield text


def words_of(path: Path) -> set[str]:
    """Return the words of a file's code."""
    text = path.read_text(encoding="utf-8")
    parts = code_of(text) if path.suffix == ".py" else [text]
    return {word.lower() for part in parts for word in (*WORD.findall(part), *re.findall(r"[A-Za-z0-9]+", part))}


def files() -> list[Path]:
    found = [path for kind in ("*.py", "*.html", "*.js") for path in SOURCE.rglob(kind)]
    return sorted(path for path in found if not any(path.is_relative_to(place) for place in KNOWING))


def test_no_provider_is_named_in_the_code() -> None:
    known = names()
    found = {}
    for path in files():
        place = path.relative_to(SOURCE)
        allowed = EXAMPLES if place.parts[0] in ("web", "practice") else set()
        found[place.as_posix()] = sorted(words_of(path) & (known - allowed))
    assert {place: words for place, words in found.items() if words} == {}


@pytest.mark.parametrize(
    "code",
    [
        'if app.template_id == "slack": ...',
        "def salesforce_instance(): ...",
        "is_github = True",
        "from x import zohoHost",
    ],
)
def test_a_name_would_be_noticed(code: str, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(f'"""About Google."""\n# Microsoft does so.\n{code}\n')
    assert len(words_of(path) & names()) == 1
