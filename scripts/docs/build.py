"""Builds the documentation site into build/docs: `make docs`. It needs no network, and neither does the site.

The pages in docs/ are plain Markdown that GitHub shows as it is. What only the site has is added to copies of them: the
navigation, tabs, the API reference. Then Sphinx builds the copies; a broken link, or a page nobody finds, is an error.
"""

import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.docs import api_reference
from scripts.docs.links import moved

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build"
SOURCE, SITE, CACHE = BUILD / "docs-source", BUILD / "docs", BUILD / "docs-cache"
ROOT_PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
"""Pages outside docs/ that the site has too."""
TABS = {"sh": "Command line", "python": "Python", "js": "Node"}

_FENCE = r"```(\w+)\n.*?^```\n"
_ADJACENT = re.compile(rf"^{_FENCE}(?:\n{_FENCE})+", re.MULTILINE | re.DOTALL)


def main() -> int:
    """Gather the pages and build them; returns the exit code of Sphinx."""
    for folder in (SOURCE, SITE, CACHE):
        shutil.rmtree(folder, ignore_errors=True)
    gather(SOURCE)
    options = ["-b", "html", "-c", str(Path(__file__).parent), "-d", str(CACHE), "--fail-on-warning", "--keep-going"]
    built = subprocess.run([sys.executable, "-m", "sphinx", "--quiet", *options, str(SOURCE), str(SITE)], check=False)
    if built.returncode:
        return built.returncode
    files = [*SITE.rglob("*.html"), *SITE.rglob("*.css")]
    foreign = {f"{file.relative_to(SITE)} loads {url}" for file in files for url in loaded(file.read_text())}
    if foreign:
        print(*sorted(foreign), sep="\n", file=sys.stderr)
        return 1
    print(f"Open {(SITE / 'index.html').as_uri()}")
    return 0


def loaded(html: str) -> list[str]:
    """Return what a page or a style sheet loads from elsewhere. Links do not count: people follow them."""
    elsewhere = r"""["'(]((?:https?:)?//[^"')]+)"""
    fetched = re.findall(rf"<(?:script|img|iframe|source)\b[^>]*\bsrc={elsewhere}", html)
    fetched += re.findall(rf"<link\b(?![^>]*rel=[\"'](?:canonical|license)[\"'])[^>]*\bhref={elsewhere}", html)
    return fetched + re.findall(rf"(?:url|@import) ?\(?{elsewhere}", html)


def gather(source: Path) -> None:
    """Write everything that Sphinx reads into the folder `source`."""
    places = {"README.md": "index.md", **{name: f"repository/{name.lower()}" for name in ROOT_PAGES}}
    for file in sorted(path for path in (ROOT / "docs").rglob("*") if path.is_file()):
        place = file.relative_to(ROOT / "docs")
        # GitHub shows a folder's README.md, a web server its index
        places[f"docs/{place}"] = str(place.with_name("index.md") if place.name == "README.md" else place)
    for old, new in places.items():
        page = source / new
        page.parent.mkdir(parents=True, exist_ok=True)
        if not old.endswith(".md"):
            shutil.copy(ROOT / old, page)
        elif old != "README.md":
            text = moved((ROOT / old).read_text(encoding="utf-8"), old, new, places)
            page.write_text(with_tabs(without_foreign_links(text, new, set(places.values()))), encoding="utf-8")
    (source / "api").mkdir()
    for name, text in api_reference.pages(ROOT / "docs").items():
        (source / "api" / name).write_text(text, encoding="utf-8")
    _add_navigation(source)


def without_foreign_links(text: str, place: str, known: set[str]) -> str:
    """Return the text of the page at `place` with links to files of the repository that the site lacks as plain words.

    `known` are the files of the site. A link to what the repository lacks too stays, and Sphinx finds it.
    """

    def kept(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(place), match[2]))
        return match[1] if target not in known and (ROOT / target).exists() else match[0]

    return re.sub(r"\[([^\]]+)\]\((?![a-z]+:)([^)#\s]+)[^)\s]*\)", kept, text)


def with_tabs(text: str) -> str:
    """Return the text with blocks of different languages that follow each other, and nothing between, as tabs."""

    def tabbed(match: re.Match[str]) -> str:
        blocks = [(block[1], block[0]) for block in re.finditer(_FENCE, match[0], re.MULTILINE | re.DOTALL)]
        languages = [language for language, _ in blocks]
        if not set(languages) <= TABS.keys() or len(set(languages)) < len(languages):
            return match[0]
        return "\n".join(f"`````{{tab}} {label(language, block)}\n{block}`````\n" for language, block in blocks)

    return _ADJACENT.sub(tabbed, text)


def label(language: str, block: str) -> str:
    """Return what stands on the tab of a block."""
    return "curl" if language == "sh" and "curl " in block else TABS[language]


def _add_navigation(source: Path) -> None:
    """Make the navigation: the start page's sections and their links, a folder's pages behind its own start page."""
    index = source / "index.md"
    text, listed = index.read_text(encoding="utf-8"), set[str]()
    trees = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        pages = [page for page in re.findall(r"\]\(([^)#:]+\.md)\)", section) if page not in listed]
        listed |= set(pages)
        if pages:
            trees.append(_toctree(section.partition("\n")[0], pages))
    for folder in {page.parent for page in source.rglob("*.md")} - {source, source / "api", source / "repository"}:
        pages = sorted(page.name for page in folder.glob("*.md") if page.name != "index.md")
        with (folder / "index.md").open("a", encoding="utf-8") as start:
            start.write(_toctree("", pages))
    trees.append(_toctree("Reference", ["api/index.md"]))
    index.write_text(text + "".join(trees), encoding="utf-8")


def _toctree(caption: str, pages: list[str]) -> str:
    heading = [f":caption: {caption}"] if caption else []
    return "\n".join(["", "```{toctree}", ":hidden:", *heading, "", *pages, "```", ""])


if __name__ == "__main__":
    sys.exit(main())
