"""Links of pages that move: the site's folders are not those of the repository."""

import posixpath
import re
from collections.abc import Mapping

_LINK = re.compile(r"(?<!\\)\]\((?![a-z]+:)([^)#\s]*)(#[^)\s]*)?\)")


def moved(text: str, old: str, new: str, places: Mapping[str, str]) -> str:
    """Return a page's text with its relative links as they must be when it moves from `old` to `new`.

    `places` says where the pages that move along go; whatever it does not name stays where it is.
    """

    def relinked(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(old), match[1])) if match[1] else old
        place = places.get(target, target)
        path = "" if place == new else posixpath.relpath(place, posixpath.dirname(new) or ".")
        return f"]({path}{match[2] or ''})"

    return _LINK.sub(relinked, text)
