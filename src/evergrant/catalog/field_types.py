"""The kinds of values that a catalogue file holds beside quirks, each with an error that says what to write instead."""

import re
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from evergrant import placeholders
from evergrant.oauth2.quirk_types import checked_url

_FRAGMENT = re.compile(r"[^\s#{}]+")


class StrictModel(BaseModel):
    """A table of a catalogue file: what is not a field of it is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


def _matching(pattern: str, remedy: str) -> Callable[[str], str]:
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(f"{text!r}: {remedy}")
        return text

    return check


def _page(text: str) -> str:
    address, mark, fragment = text.partition("#")
    if mark and not _FRAGMENT.fullmatch(placeholders.NAME.sub("x", fragment)):
        raise ValueError(f"{text!r}: write something without spaces behind the '#', or remove it")
    checked_url(address)
    return text


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r}: not a regular expression: {error}") from None
    return text


Slug = Annotated[
    str, AfterValidator(_matching(r"[a-z0-9][a-z0-9-]{0,62}", "use at most 63 small letters, digits and '-'"))
]
Title = Annotated[str, Field(min_length=1, max_length=200)]
Description = Annotated[str, Field(max_length=300)]
OptionalUrl = Annotated[str, Field(max_length=2_000), AfterValidator(lambda text: text and checked_url(text))]
PageUrl = Annotated[str, Field(max_length=2_000), AfterValidator(_page)]
"""One that only a browser opens: it may have a fragment."""
OptionalPageUrl = Annotated[str, Field(max_length=2_000), AfterValidator(lambda text: text and _page(text))]
Issuer = OptionalUrl
"""May hold `{tenantid}`, as Microsoft publishes it: that one is not a variable."""
Scope = Annotated[
    str,  # RFC 6749 section 3.3
    AfterValidator(_matching(r"[\x21\x23-\x5b\x5d-\x7e]+", "a scope has no spaces, quotes and backslashes")),
]
ScopePattern = Annotated[Scope, AfterValidator(_matching(r"[^*]*\*?[^*]*", "one '*' at most stands for the rest"))]
"""A scope, or one in which a `*` stands for the same text on both sides of a table."""
VariableName = Annotated[
    str, AfterValidator(_matching(r"[A-Za-z][A-Za-z0-9_]{0,62}", "use letters, digits and '_', a letter first"))
]
Regex = Annotated[str, AfterValidator(_regex)]
Seconds = Annotated[int, Field(ge=0)]
