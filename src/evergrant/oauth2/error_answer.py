"""Reads what a provider says went wrong, wherever and in whatever form it says it.

RFC 6749 section 5.2 has `error` and `error_description` at the top of a JSON object. Real servers also answer with
lists, with objects inside `error`, `errors`, `fault` and the like, with names of their own (RFC 9457's `type`, `title`
and `detail` among them), and with nothing but a word.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from evergrant.oauth2.pointers import first
from evergrant.oauth2.quirks import ResponseShape
from evergrant.oauth2.token_response import parse_body
from evergrant.oauth2.transport import HttpAnswer

_CODES = (
    *("error", "errorcode", "errortype", "errors", "errcode", "err", "code", "faultcode", "fault"),
    *("type", "title", "reason", "name", "status"),
)
"""Members with an error code, the most telling first; written small and without underscores and hyphens."""
_TEXTS = (
    *("errordescription", "description", "message", "errormessage", "errmsg", "errormsg", "msg", "faultstring"),
    *("detail", "details", "hint", "errorsummary", "errordetail", "errorreason", "usermessage", "other"),
)
"""Members with an explanation, the same way; the last stands for those of any other name."""
_CONTAINERS = frozenset({"error", "errors", "fault", "detail", "details"})
"""What stands inside one of them is about the error, whatever it is called."""
_NAMES_OF_A_FIELD = frozenset({"field", "param", "parameter", "property", "path", "name", "source", "key", "target"})
"""Members that say which field of the request a validation error is about."""
_NO_ERROR = frozenset({"", "0", "ok", "success", "false", "true", "none", "null"})
"""What providers put into a place for errors when there is none, or when it is told elsewhere."""
_FAILED = frozenset({"error", "fail", "failed", "failure"})
_DEEPEST, _MOST = 6, 200
_LONGEST_WORD = 300
"""Characters of a body that may be nothing but a code or a sentence."""


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """What an answer says about an error, as it came: for deciding. Nothing in it is safe to show."""

    status: int
    codes: tuple[str, ...] = ()
    """Everything that may be an error code, the most telling first."""
    texts: tuple[str, ...] = ()
    """Everything that may be an explanation, the most telling first."""
    is_readable: bool = True
    """False for web pages, half an object and other nonsense."""
    is_reported: bool = True
    """False for an answer with a success status that does not say by itself that something went wrong."""


def read_error(answer: HttpAnswer, shape: ResponseShape) -> ErrorAnswer | None:
    """Return what an answer says about an error; None where it has tokens, and so reports success."""
    status, succeeds = answer.status, answer.status < 300
    members = parse_body(answer.body, answer.headers.get("content-type", ""))
    value: Any = _bare(answer.body) if members is None and 400 <= status < 500 else members
    if value is None or isinstance(value, str):
        return ErrorAnswer(status, (value,) if value else (), is_readable=False, is_reported=not succeeds)
    members = members or {}
    if succeeds and first(members, shape.access_token) and members.get("ok") is not False:
        return None
    found = list(islice(_leaves(value, "error", inside=members != value), _MOST))
    found.sort(key=lambda leaf: (_CODES + _TEXTS).index(leaf[0]))
    own = first(members, shape.error)
    own_codes = [text for _, text in _leaves(own, "error")] if not isinstance(own, dict | list) else []
    own_texts = [text for _, text in _leaves(first(members, shape.error_description), "message")]
    codes = [*own_codes, *(text for name, text in found if name in _CODES and text != str(status))]
    texts = [*own_texts, *(text for name, text in found if name in _TEXTS)]
    return ErrorAnswer(
        status,
        codes=tuple(dict.fromkeys(codes)),
        texts=tuple(dict.fromkeys(texts)),
        is_reported=not succeeds or _is_reported(members, own),
    )


def _is_reported(members: dict[str, Any], own: object) -> bool:
    if own is True or (own is not None and not isinstance(own, bool) and str(own).strip().lower() not in _NO_ERROR):
        return True
    if members.get("ok") is False or members.get("success") is False:
        return True
    return bool(members.get("errors")) or str(members.get("status")).lower() in _FAILED


def _bare(body: bytes) -> Any:
    """Return a body that is a JSON list or text, or a word or a sentence without any form; None for other things."""
    text = body.decode("utf-8-sig", errors="replace").strip()
    if text[:1] in ("[", '"'):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, list | str) else None
    return text if text and text[0] not in "<{" and len(text) <= _LONGEST_WORD else None


def _leaves(value: object, name: str, *, inside: bool = False, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield the texts and numbers of a value that tell about an error, each with the plain name of its member.

    `name` is the value's own, empty where it tells nothing; `inside` tells that everything in the value does.
    """
    if depth > _DEEPEST:
        return
    if isinstance(value, dict):
        yield from (("other", f"refresh token {text}") for text in _about_the_refresh_token(value))
        for key, item in value.items():
            own = _plain(key)
            unknown = "other" if inside else ""
            known = own if own in _CODES or own in _TEXTS else unknown
            yield from _leaves(item, known, inside=inside or own in _CONTAINERS, depth=depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, name, inside=inside, depth=depth + 1)
    elif name and isinstance(value, str | int) and not isinstance(value, bool):
        text = str(value).strip()
        if text.lower() not in _NO_ERROR:
            yield name, text


def _about_the_refresh_token(members: dict[str, Any]) -> Iterator[str]:
    """Yield what a form's validation says of the refresh token: as its member, or beside its name."""
    names = {_plain(value) for key, value in members.items() if _plain(key) in _NAMES_OF_A_FIELD}
    for key, item in members.items():
        about = _plain(key) == "refreshtoken" or ("refreshtoken" in names and _plain(key) in _TEXTS)
        yield from (str(text) for text in (item if isinstance(item, list) else [item]) if about and text)


def _plain(name: object) -> str:
    return str(name).lower().replace("_", "").replace("-", "")
