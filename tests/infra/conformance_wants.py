"""What a provider demands of a request, and whether one is exactly that: nothing missing, nothing more."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.infra.scripted import Request

Want = str | Callable[[str], bool]
"""A text, or what must be true of one."""


def something(value: str) -> bool:
    """Anything but nothing."""
    return bool(value)


@dataclass(frozen=True)
class Wanted:
    """One kind of request that a provider takes. `body` is a text that is sent as it is, in place of parameters."""

    role: str
    method: str
    url: str
    params: Mapping[str, Want] = field(default_factory=dict)
    headers: Mapping[str, Want] = field(default_factory=dict)
    form: str = "query"
    body: str | None = None

    def may_be(self, seen: Request) -> bool:
        """Whether a request went to this address by this method."""
        return seen.method == self.method and seen.path == urlsplit(self.url).path  # browsers keep fragments

    def is_meant_by(self, seen: Request) -> bool:
        """Whether it says what only such a request says, where several kinds share an address."""
        sent = {} if self.body is not None else seen.params
        fixed = {name: want for name, want in self.params.items() if name in ("grant_type", "grantType", "action")}
        return all(sent.get(name) == want for name, want in fixed.items())

    def complaints(self, seen: Request) -> Iterator[str]:
        """Say everything in which a request is not what is wanted."""
        for name in {"authorization", *self.headers}:
            yield from _about(f"{self.role}: header {name}", seen.headers.get(name), self.headers.get(name))
        if self.body is not None:
            yield from _about(f"{self.role}: body", seen.body.decode(), self.body)
            return
        yield from self._about_form(seen)
        pairs = seen.all_pairs
        sent = dict(pairs)
        if len(sent) < len(pairs):
            yield f"{self.role}: a parameter was sent twice"
        wanted: dict[str, Want] = {**dict(parse_qsl(urlsplit(self.url).query, keep_blank_values=True)), **self.params}
        for name in sorted(sent.keys() | wanted.keys()):
            yield from _about(f"{self.role}: parameter {name}", sent.get(name), wanted.get(name))

    def _about_form(self, seen: Request) -> Iterator[str]:
        kind = seen.headers.get("content-type", "")
        if self.form == "query":
            if seen.body:
                yield f"{self.role}: a body where parameters belong into the query"
            return
        if not self.params:
            return
        expected = {"form": "application/x-www-form-urlencoded", "json": "application/json"}[self.form]
        if not kind.startswith(expected):
            yield f"{self.role}: content-type {kind!r}, not {expected}"
        if seen.query != dict(parse_qsl(urlsplit(self.url).query, keep_blank_values=True)):
            yield f"{self.role}: parameters in the query that belong into the body"


def _about(what: str, sent: object, want: Want | None) -> Iterator[str]:
    if want is None:
        if sent is not None:
            yield f"{what} is sent, and is not known here"
    elif sent is None:
        yield f"{what} is missing"
    elif not isinstance(sent, str):
        yield f"{what} is no text"
    elif callable(want):
        if not want(sent):
            yield f"{what} is not right: {sent!r}"
    elif sent != want:
        yield f"{what} is {sent!r}, not {want!r}"


def placed(into: Any, pointer: str, value: Any) -> Any:
    """Return a JSON value with `value` at a JSON pointer (RFC 6901) of it."""
    if not pointer:
        return value
    head, _, rest = pointer[1:].partition("/")
    rest = f"/{rest}" if rest else ""
    if head.isdigit():
        items = list(into or [])
        items += [None] * (int(head) + 1 - len(items))
        items[int(head)] = placed(items[int(head)], rest, value)
        return items
    members = into or {}
    return {**members, head: placed(members.get(head), rest, value)}
