"""Languages of the visitors' pages: which one a request is answered in, and its words.

Words are in `locales/`, made by GNU gettext's tools of `make locales`, and read with Python's own gettext.
"""

import gettext as gnu
from contextvars import ContextVar
from functools import cache
from pathlib import Path

LOCALES = Path(__file__).parent / "locales"
DOMAIN = "visitor"
ENGLISH = "en"

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
