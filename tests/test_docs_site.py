"""What `make docs` adds to the pages before Sphinx builds them: it needs no Sphinx, so it is tested with all else."""

import re
from pathlib import Path

import pytest

from evergrant.settings import Settings
from evergrant.web.app import create_app
from scripts.docs import build
from scripts.docs.links import moved

SH = "```sh\ncurl -sS $EVERGRANT\n```\n"
PYTHON = "```python\nprint(1)\n```\n"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that Sphinx would read."""
    folder = tmp_path_factory.mktemp("site") / "source"
    build.gather(folder)
    return folder


def test_blocks_in_several_languages_become_tabs() -> None:
    assert build.with_tabs(f"a\n\n{SH}\n{PYTHON}\nb\n") == (
        f"a\n\n`````{{tab}} curl\n{SH}`````\n\n`````{{tab}} Python\n{PYTHON}`````\n\nb\n"
    )


@pytest.mark.parametrize(
    "text",
    [SH, f"{SH}\n{SH}", f"{SH}\nand\n\n{PYTHON}", SH + "\n```json\n{}\n```\n"],
    ids=["one", "twice the same language", "words between", "an answer"],
)
def test_other_blocks_stay_as_they_are(text: str) -> None:
    assert build.with_tabs(text) == text


def test_links_follow_a_page_that_moves() -> None:
    places = {"docs/fetch.md": "fetch.md", "CHANGELOG.md": "repository/changelog.md"}
    text = "[a](docs/fetch.md#errors) [b](https://example.com) [c](#here) ![d](docs/images/x.png)"
    assert moved(text, "CHANGELOG.md", "repository/changelog.md", places) == (
        "[a](../fetch.md#errors) [b](https://example.com) [c](#here) ![d](../docs/images/x.png)"
    )


def test_every_page_is_in_the_navigation(source: Path) -> None:
    found: set[Path] = set()
    waiting = [source / "index.md"]
    while waiting:
        page = waiting.pop()
        if page not in found:
            found.add(page)
            for tree in re.findall(r"```{toctree}\n(.*?)```", page.read_text(), flags=re.DOTALL):
                entries = [line for line in tree.splitlines() if line and not line.startswith(":")]
                waiting += [(page.parent / entry).with_suffix(".md") for entry in entries]
    assert found == set(source.rglob("*.md"))


def test_the_start_page_lists_the_pages_by_who_reads(source: Path) -> None:
    captions = re.findall(r"^:caption: (.*)$", (source / "index.md").read_text(), flags=re.MULTILINE)
    assert captions == ["Operators", "Integrators", "Contributors", "Reference"]


def test_the_reference_has_every_call_and_every_error(source: Path) -> None:
    text = "\n".join(page.read_text() for page in (source / "api").glob("*.md"))
    for path, item in create_app(Settings()).openapi()["paths"].items():
        for method, operation in item.items():
            assert f"## {operation['summary']}\n\n```http\n{method.upper()} {path} HTTP/1.1" in text
    errors = (source / "api/errors.md").read_text()
    assert set(re.findall(r"E\d{6}", (build.ROOT / "docs/fetch.md").read_text())) <= set(re.findall(r"E\d{6}", errors))


def test_fields_without_words_of_their_own_take_those_of_the_guide(source: Path) -> None:
    (row,) = set(re.findall(r"^\| `revocationUrl` \|.*$", (source / "api/apps.md").read_text(), flags=re.MULTILINE))
    assert "../connections.md#ending-connections" in row


def test_a_page_that_loads_something_from_elsewhere_is_noticed() -> None:
    assert build.loaded('<a href="https://example.com">x</a><script src="_static/a.js"></script>') == []
    assert build.loaded('<script src="https://cdn.example.com/a.js"></script>') == ["https://cdn.example.com/a.js"]
    assert build.loaded('<link rel="stylesheet" href="//cdn.example.com/a.css">') == ["//cdn.example.com/a.css"]
    assert build.loaded("<style>@import url('https://cdn.example.com/a.css')</style>") != []
