"""Forms of pages as a browser would send them, when nobody touches a field."""

from html.parser import HTMLParser
from urllib.parse import urlsplit

Fields = dict[str, list[str]]
"""Values by field, in the order of the page."""


class _Reader(HTMLParser):
    """Collects the fields of each form of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: dict[str, Fields] = {}
        self._now: Fields | None = None
        self._select, self._area = "", ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._now = self.forms.setdefault(urlsplit(has.get("action", "")).path, {})
        if self._now is None or "disabled" in has:
            return
        name = has.get("name", "")
        if tag == "select":
            self._select = name
        elif tag == "option" and self._select and ("selected" in has or self._select not in self._now):
            self._now[self._select] = [has.get("value", "")]
        elif tag == "textarea" and name:
            self._area = name
            self._now.setdefault(name, []).append("")
        elif tag == "input" and name and has.get("type") not in ("file", "submit"):
            is_box = has.get("type") in ("checkbox", "radio")
            if not is_box or "checked" in has:
                self._now.setdefault(name, []).append(has.get("value", "on" if is_box else ""))

    def handle_data(self, data: str) -> None:
        if self._area and self._now is not None:
            self._now[self._area][-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._now = None
        elif tag == "select":
            self._select = ""
        elif tag == "textarea":
            self._area = ""


def form_of(page: str, path: str) -> Fields:
    """Return what the form of a page that is sent to `path` sends; its buttons are not pressed."""
    reader = _Reader()
    reader.feed(page)
    return reader.forms[path]
