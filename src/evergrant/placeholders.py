"""`{name}` inside a URL, a parameter or a header: a value that differs from app to app, or from call to call."""

import re
from collections.abc import Mapping

NAME = re.compile(r"\{([A-Za-z][A-Za-z0-9_]*)\}")


def fill(text: str, *values: Mapping[str, str]) -> str:
    """Put values in the place of their `{names}`; the first mapping that has one wins. Others stay as they are.

    It goes over the text once: what a value holds is never looked at again, so none can stand for another.
    """

    def value(found: re.Match[str]) -> str:
        return next((mapping[found[1]] for mapping in values if found[1] in mapping), found[0])

    return NAME.sub(value, text)


def names_in(text: str) -> list[str]:
    """Return the names in a text, in their order."""
    return NAME.findall(text)
