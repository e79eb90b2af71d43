"""Keeps the words of the visitors' pages: `make locales` collects them, updates each language's file and compiles it.

Whoever translates edits `src/evergrant/web/locales/*/LC_MESSAGES/visitor.po`. A test compares what is committed.
"""

import io
from datetime import UTC, datetime
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_file
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from evergrant.web.locale import DOMAIN, ENGLISH, LANGUAGES, LOCALES

WEB = LOCALES.parent
SINCE = datetime(2026, 11, 26, tzinfo=UTC)
OPTIONS = {"newstyle_gettext": "true", "trim_blocks": "true", "lstrip_blocks": "true", "silent": "false"}
KEYWORDS = {"_": None, "gettext": None, "noted": None, "ngettext": (1, 2)}


def collected() -> Catalog:
    """Return every text that the visitors' pages and their modules show."""
    found = Catalog(domain=DOMAIN)
    sources = [("jinja2", file) for file in sorted((WEB / "templates" / "visitor").glob("*.html"))]
    sources += [("python", file) for file in sorted(WEB.glob("*.py"))]
    for method, file in sources:
        for _, message, _, _ in extract_from_file(method, file, keywords=KEYWORDS, options=OPTIONS):
            found.add(message, locations=[(file.relative_to(WEB).as_posix(), 0)])
    return found


def po_file(language: str) -> Path:
    """Return where a language's words are."""
    return LOCALES / language / "LC_MESSAGES" / f"{DOMAIN}.po"


def words_of(language: str) -> Catalog:
    """Return a language's words as they are in its file; none where there is no file yet."""
    file = po_file(language)
    if not file.exists():
        return Catalog(locale=language, domain=DOMAIN)
    with file.open("rb") as stream:
        return read_po(stream, locale=language, domain=DOMAIN)


def compiled(words: Catalog) -> bytes:
    """Return the words as gettext reads them."""
    stream = io.BytesIO()
    write_mo(stream, words)
    return stream.getvalue()


def main() -> None:
    """Bring every language's file up to date, and tell what is left to translate."""
    texts = collected()
    for language in (code for code in LANGUAGES if code != ENGLISH):
        words, file = words_of(language), po_file(language)
        words.update(texts, no_fuzzy_matching=True)
        words.obsolete.clear()
        words.header_comment, words.fuzzy = f"# {LANGUAGES[language]}: words of the visitors' pages.", False
        words.project, words.version, words.msgid_bugs_address = "evergrant", "", ""
        words.last_translator = words.language_team = ""
        words.creation_date = words.revision_date = SINCE  # nothing changes in these files but words
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as stream:
            write_po(stream, words, width=120, omit_header=False, sort_output=True, include_lineno=False)
        file.with_suffix(".mo").write_bytes(compiled(words))
        missing = sum(not message.string for message in words if message.id)
        print(f"{file.relative_to(Path.cwd())}: {len(words)} texts, {missing} to translate")


if __name__ == "__main__":
    main()
