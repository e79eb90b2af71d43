"""The threat model: what it says is proven, is; and no attack that is tried is missing from it."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ATTACKS = ROOT / "tests" / "attacks"
PAGE = (ROOT / "docs/threat-model.md").read_text()

_NAMED = re.compile(r"((?:\*[a-z0-9 ]+\*(?:; )?)+) \(([\w/]+\.py)\)")


def named() -> list[tuple[Path, str]]:
    """Return file and name of each test that the page's tables name."""
    rows = [line for line in PAGE.splitlines() if line.startswith("|")]
    found = [match for row in rows for match in _NAMED.findall(row)]
    names = [(f, "test_" + words.strip("*").replace(" ", "_")) for cell, f in found for words in cell.split("; ")]
    return [(ROOT / file if "/" in file else ATTACKS / file, name) for file, name in names]


def _tests_in(file: Path) -> set[str]:
    """Return the tests of a file, also those in classes."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = ast.walk(ast.parse(file.read_text())) if file.is_file() else ()
    return {node.name for node in nodes if isinstance(node, functions) and node.name.startswith("test_")}


def test_every_test_that_the_page_names_exists() -> None:
    assert len(named()) > 60
    assert [f"{file.name}::{name}" for file, name in named() if name not in _tests_in(file)] == []


def test_no_attack_that_is_tried_is_missing_from_the_page() -> None:
    tried = {(file, name) for file in sorted(ATTACKS.glob("test_*.py")) for name in _tests_in(file)}
    rest = sorted(tried - set(named()))
    missing = [f"| ? | ? | *{n.removeprefix('test_').replace('_', ' ')}* ({file.name}) |" for file, n in rest]
    assert not missing, "say in docs/threat-model.md what is attacked, and what stops it:\n" + "\n".join(missing)


def test_each_row_names_what_proves_it() -> None:
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    tables = [section for section in sections if re.match(r"\d\. ", section)]
    assert len(tables) == 5
    for line in (line for table in tables for line in table.splitlines()):
        if line.startswith("| ") and not line.startswith("| attack "):
            assert _NAMED.search(line), line


def test_the_drawing_says_in_words_what_it_shows_and_has_both_lights() -> None:
    drawing = (ROOT / "docs/images/threat-model.svg").read_text()
    assert "<title" in drawing
    assert "<desc" in drawing
    assert "prefers-color-scheme: dark" in drawing
    assert not re.search(r"(?:href|url\()\W*https?:", drawing), "it loads nothing from elsewhere"
    assert re.search(r"!\[[^\]]{40,}\]\(images/threat-model\.svg\)", PAGE)
