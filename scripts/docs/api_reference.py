"""Writes the API reference: a page for each group of calls, from the OpenAPI document of this very checkout."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evergrant.errors import EvergrantError
from evergrant.settings import Settings
from evergrant.web.app import create_app
from evergrant.web.documentation import described_calls
from scripts.docs.links import moved

GUIDES = {
    "tokens": "fetch.md",
    "apps": "apps.md",
    "templates": "apps.md",
    "uploads": "connections.md",
    "connections": "connections.md",
    "connect": "connect.md",
    "trusted issuers": "users.md",
    "policies": "users.md",
    "token exchange": "users.md",
    "management keys": "keys.md",
    "audit": "audit.md",
    "webhooks": "webhooks.md",
    "health": "monitoring.md",
}
"""The page that explains a group. Its tables say what a field means where the OpenAPI document says nothing."""

_WRAPPED = re.compile(r"^(app|apps\[\]|key|keys\[\]|webhook|webhooks\[\]|delivery|deliveries\[\]|audits\[\])\.")
"""What stands around an object in a body: inside it, a field means what the guide says of it by its bare name."""

Field = tuple[str, str, bool, str]


def pages(docs: Path) -> dict[str, str]:
    """Return the text of every page by its name; `docs` is the folder of the guides."""
    calls = list(described_calls(create_app(Settings()).openapi()))
    groups: dict[str, list[dict[str, Any]]] = {}
    for call in calls:
        groups.setdefault(call["tag"], []).append(call)
    written = {f"{_file(tag)}.md": _group(docs, tag, members) for tag, members in groups.items()}
    return {"index.md": _index(groups), **written, "errors.md": _errors()}


def _file(tag: str) -> str:
    return tag.replace(" ", "-")


def _index(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    lines = [
        "# API reference",
        "",
        "This reference has every call, with its fields and [errors](errors.md). It is made from the OpenAPI document,",
        "which a running server publishes at `/openapi.json`.",
        "",
        "Calls under `/v1/mgmt/` take `Authorization: Bearer <PROJECT_ID>:<MANAGEMENT_KEY>`. A few also take a",
        "[user's own token](../users.md) in place of the management key; each call says so.",
    ]
    for tag, calls in groups.items():
        lines += ["", f"## {tag.capitalize()}", "", "| call | |", "|---|---|"]
        lines += [
            f"| [{call['summary']}]({_file(tag)}.md#{_anchor(call['summary'])}) | `{call['method']} {call['path']}` |"
            for call in calls
        ]
    lines += ["", *_toctree([*(_file(tag) for tag in groups), "errors"])]
    return "\n".join(lines) + "\n"


def _group(docs: Path, tag: str, calls: Sequence[Mapping[str, Any]]) -> str:
    guide = GUIDES.get(tag)
    meanings = _meanings(docs / guide) if guide else {}
    lines = [f"# API: {tag}", ""]
    if guide:
        lines += [f"The guide to these calls: [{_title(docs / guide)}](../{guide}).", ""]
    answered: dict[tuple[Field, ...], str] = {}
    for call in calls:
        lines += _call(call, meanings, answered)
    return "\n".join(lines)


def _call(
    call: Mapping[str, Any], meanings: Mapping[str, str], answered: dict[tuple[Field, ...], str]
) -> Iterator[str]:
    """Yield the section of a call; `answered` has the calls of this page so far by what they answer."""
    yield from [f"## {call['summary']}", "", "```http", f"{call['method']} {call['path']} HTTP/1.1"]
    if call["needs_key"]:
        yield "Authorization: Bearer <PROJECT_ID>:<MANAGEMENT_KEY>"
    if call["format"]:
        yield f"Content-Type: {call['format']}"
    yield from ["```", "", _text(call["description"]), ""]
    if call["takes_user_token"]:
        yield from ["A [user's own token](../users.md) may stand in place of the management key.", ""]
    if call["takes"]:
        yield from ["### Request", "", *_table(call["takes"], meanings, is_request=True), ""]
    if call["request"]:
        yield from ["```json", call["request"], "```", ""]
    gives = tuple(map(tuple, call["gives"]))
    if gives or call["answer"]:
        yield from ["### Answer", ""]
    if gives and gives in answered:
        yield from [f"The same fields as [{answered[gives]}](#{_anchor(answered[gives])}).", ""]
    elif gives:
        answered[gives] = call["summary"]
        yield from [*_table(call["gives"], meanings, is_request=False), ""]
    if call["answer"]:
        yield from ["```json", call["answer"], "```", ""]
    if call["errors"]:
        is_oauth = call["tag"] == "token exchange"
        yield from ["### Errors", "", *_refusals(call["errors"], with_codes=not is_oauth), ""]


def _table(fields: Sequence[Field], meanings: Mapping[str, str], *, is_request: bool) -> Iterator[str]:
    yield from ["| field | type | meaning |", "|---|---|---|"]
    for name, kind, needed, text in fields:
        bare = _WRAPPED.sub("", name)
        # Outside of such an object, what a guide says is said of requests
        known = meanings.get(bare, "") if is_request or bare != name else ""
        meaning = _text(text) if text else known
        demanded = "**Required.** " if is_request and needed else ""
        yield f"| `{name}` | {kind.replace('|', 'or')} | {demanded}{_cell(meaning)} |"


def _refusals(errors: Sequence[tuple[str, str]], *, with_codes: bool) -> Iterator[str]:
    codes = _codes()
    yield from [
        "| status | code | meaning |" if with_codes else "| status | meaning |",
        "|---" * (2 + with_codes) + "|",
    ]
    for status, text in errors:
        known = ", ".join(f"[{code}](errors.md)" for (at, code) in codes if at == int(status))
        yield f"| {status} | {known} | {_cell(_text(text))} |" if with_codes else f"| {status} | {_cell(_text(text))} |"


def _errors() -> str:
    lines = [
        "# API: errors",
        "",
        "Every error but those of the [token exchange](token-exchange.md) is the same JSON object: `errorCode`,",
        "`errorDescription`, `errorMessage`, `message`, `requestId`, and `details` where it helps.",
        "[Fetching](../fetch.md#errors) says what to do about each.",
        "",
        "| status | code | message, where the call has nothing more precise to say |",
        "|---|---|---|",
    ]
    lines += [f"| {status} | `{code}` | {_cell(' '.join(texts))} |" for (status, code), texts in _codes().items()]
    return "\n".join(lines) + "\n"


def _codes() -> dict[tuple[int, str], list[str]]:
    """Return the messages of the tree of errors, by status and code."""

    def below(kind: type[EvergrantError]) -> Iterator[type[EvergrantError]]:
        for child in kind.__subclasses__():
            yield child
            yield from below(child)

    found: dict[tuple[int, str], list[str]] = {}
    for kind in below(EvergrantError):
        if "code" in vars(kind) or not kind.__subclasses__():
            found.setdefault((kind.status, kind.code), []).append(_text((kind.__doc__ or "").splitlines()[0]))
    return dict(sorted(found.items()))


def _meanings(guide: Path) -> dict[str, str]:
    """Return what the tables of a guide say of a field, by its name, with links as they are one folder further down."""
    found: dict[str, str] = {}
    for names, meaning in re.findall(r"^\| (`[^|]*) \| ([^|\n]*) \|$", guide.read_text(encoding="utf-8"), re.MULTILINE):
        for name in re.findall(r"`([^`]+)`", names):
            found.setdefault(name, moved(meaning, guide.name, "api/page.md", {guide.name: guide.name}))
    return found


def _title(page: Path) -> str:
    return page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")


def _text(text: str) -> str:
    """Return words of the code as Markdown: angle brackets outside of code spans would be taken for HTML."""
    parts = re.split(r"(`[^`]*`)", text.strip())
    return "".join(part if part.startswith("`") else part.replace("<", "\\<") for part in parts)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def _toctree(entries: Sequence[str]) -> list[str]:
    return ["```{toctree}", ":hidden:", *entries, "```"]
