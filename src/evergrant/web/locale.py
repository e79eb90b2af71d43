"""Languages of the visitors' pages: which one a request is answered in, and its words.

Words are in `locales/`, kept by `make locales`, and read with Python's own gettext.
"""

import gettext as gnu
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

LOCALES = Path(__file__).parent / "locales"
DOMAIN = "visitor"
ENGLISH = "en"
LANGUAGES = {ENGLISH: "English", "de": "Deutsch", "fr": "Français"}
"""The languages that there are words in, each by its own name."""
MOST_WISHES = 20
"""So many entries of an Accept-Language header are looked at."""

language: ContextVar[str] = ContextVar("language", default=ENGLISH)
"""What the page that is being made speaks."""


@cache
def _translations(code: str) -> gnu.NullTranslations:
    return gnu.translation(DOMAIN, LOCALES, [code], fallback=True)


def gettext(text: str) -> str:
    """Return a text in the language of the page."""
    return _translations(language.get()).gettext(text)


def ngettext(one: str, many: str, n: int) -> str:
    """Return the form of a text for a number, in the language of the page."""
    return _translations(language.get()).ngettext(one, many, n)


def noted(text: str) -> str:
    """Mark a text for the translators, where it stands; it is translated where it is shown."""
    return text


@contextmanager
def speaking(code: str) -> Iterator[None]:
    """Make pages in a language, within this block."""
    before = language.set(code)
    try:
        yield
    finally:
        language.reset(before)


def chosen(asked: str, accepted: str, usual: str = "") -> str:
    """Return the language to answer in: what was asked for, else what the browser accepts, else the usual one.

    `asked` and `usual` are language tags (`de`, `pt-BR`) or empty, `accepted` is an Accept-Language header (RFC 9110
    section 12.5.4). Of a language that there are no words in, the next wish counts; in the end, English.
    """
    for tag in (asked, *_by_weight(accepted), usual):
        code = tag.replace("_", "-").partition("-")[0].strip().lower()
        if code in LANGUAGES:
            return code
    return ENGLISH


def _by_weight(accepted: str) -> list[str]:
    """Return the tags of an Accept-Language header, the dearest first, without those that are refused."""
    weighed = []
    for entry in accepted.split(",", MOST_WISHES)[:MOST_WISHES]:
        tag, _, weight = entry.partition(";")
        try:
            q = float(weight.strip().removeprefix("q=")) if weight.strip() else 1.0
        except ValueError:
            continue
        if q > 0:
            weighed.append((q, tag.strip()))
    return [tag for _, tag in sorted(weighed, key=lambda entry: -entry[0])]
