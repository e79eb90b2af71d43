"""The words of the visitors' pages are whole in every language, and what is read is what was translated."""

import gettext
import re

import pytest

from evergrant.web.locale import ENGLISH, LANGUAGES
from scripts.locales import collected, po_file, words_of

PLACEHOLDER = re.compile(r"%\(\w+\)s|</?\w+>")
ASK = "run `make locales`, and translate what is missing"
OTHERS = [code for code in LANGUAGES if code != ENGLISH]


def texts_of(language: str) -> dict[str, str]:
    """Return each text with its translation; none of the pages' texts counts anything, so each is one string."""
    return {str(message.id): str(message.string) for message in words_of(language) if message.id}


@pytest.mark.parametrize("language", OTHERS)
def test_every_text_is_translated_and_none_is_left_over(language: str) -> None:
    words = texts_of(language)
    assert words.keys() == {message.id for message in collected() if message.id}, ASK
    assert [text for text, translated in words.items() if not translated] == [], ASK


@pytest.mark.parametrize("language", OTHERS)
def test_a_translation_shows_the_same_things_as_the_text(language: str) -> None:
    for text, translated in texts_of(language).items():
        assert sorted(PLACEHOLDER.findall(translated)) == sorted(PLACEHOLDER.findall(text)), text
        assert "%" not in PLACEHOLDER.sub("", translated), text


@pytest.mark.parametrize("language", OTHERS)
def test_what_is_read_is_what_was_translated(language: str) -> None:
    with po_file(language).with_suffix(".mo").open("rb") as stream:
        read = gettext.GNUTranslations(stream)
    for text, translated in texts_of(language).items():
        assert read.gettext(text) == translated, ASK
