"""JSON pointers (RFC 6901), into answers that may hold anything."""

from collections.abc import Iterable


def find(value: object, pointer: str) -> object | None:
    """Return what is at a place of a parsed JSON value; None where there is nothing."""
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and key.isascii() and key.isdigit() and int(key[:9]) < len(value):
            value = value[int(key[:9])]
        else:
            return None
    return value


def first(value: object, pointers: Iterable[str]) -> object | None:
    """Return what is at the first of these places that has something; empty text and empty lists are nothing."""
    return next((found for place in pointers if (found := find(value, place)) not in (None, "", [], {})), None)
