"""What an app may say about its provider's API: further bases, headers that each call has, calls that nobody makes."""

import re
from collections.abc import Mapping, Sequence

from pydantic import TypeAdapter, ValidationError

from evergrant import placeholders
from evergrant.broker.apps.variables import declared_variables
from evergrant.catalog.api import Rule
from evergrant.catalog.field_types import Slug
from evergrant.catalog.template import Template

Problems = list[tuple[str, str]]

MOST_BASES, MOST_HEADERS, MOST_RULES = 20, 50, 200
_OF_THE_CLIENT = ("client_id", "client_secret")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")  # a token of RFC 9110 section 5.6.2
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_OURS = frozenset(
    {"authorization", "host", "content-length", "cookie", "expect"}
    | {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Headers that evergrant writes itself, or that are about one connection (RFC 9110 section 7.6.1)."""
_OUR_KINDS = ("evergrant-", "proxy-", "sec-", "x-forwarded-")
_rule, _slug = TypeAdapter(Rule), TypeAdapter(Slug)


def api_problems(
    template: Template | None,
    *,
    base_url: str,
    further: Mapping[str, str],
    headers: Mapping[str, str],
    forbidden: Sequence[str],
) -> Problems:
    """Return what is wrong with an app's API fields, but for where its URLs lead."""
    problems = [
        (field, "is a base that paths stand behind: leave ? and # and what follows out")
        for field, url in (("apiBaseUrl", base_url), *(("apiFurther", url) for url in further.values()))
        if set("?#") & set(url)
    ]
    for field, count, most in (
        ("apiFurther", len(further), MOST_BASES),
        ("apiHeaders", len(headers), MOST_HEADERS),
        ("apiForbidden", len(forbidden), MOST_RULES),
    ):
        if count > most:
            problems.append((field, f"use at most {most}"))
    for name, url in further.items():
        if problem := _problem_of(_slug, name):
            problems.append(("apiFurther", f"'{name}' is no name: {problem}"))
        elif not url:
            problems.append(("apiFurther", f"'{name}' has no URL: give it one, or leave it out"))
    problems += [("apiHeaders", problem) for problem in _header_problems(template, headers)]
    return problems + [("apiForbidden", problem) for text in forbidden if (problem := _problem_of(_rule, text))]


def _header_problems(template: Template | None, headers: Mapping[str, str]) -> list[str]:
    known = {*declared_variables(template), *_OF_THE_CLIENT}
    carried = template.api.credential if template is not None else None
    credential = carried.name.lower() if carried is not None and carried.place == "header" else ""
    problems: list[str] = []
    if len({name.lower() for name in headers}) < len(headers):
        problems.append("a name stands there twice: names differ by more than capital letters")
    for name, value in headers.items():
        small = name.lower()
        unknown = [one for one in placeholders.names_in(value) if one not in known]
        if not _NAME.fullmatch(name):
            problems.append("a name is no header's: use letters, digits and '-', at most 100")
        elif small in _OURS or small.startswith(_OUR_KINDS) or small == credential:
            problems.append(f"'{name}' is set by evergrant itself: leave it out")
        elif not _VALUE.fullmatch(value):
            problems.append(f"'{name}' needs a value of visible ASCII characters, without blanks around it")
        elif unknown:
            problems.append(
                f"'{name}': {{{unknown[0]}}} is neither a variable of the app's template nor client_id or client_secret"
            )
    return problems


def _problem_of(kind: TypeAdapter[str], text: str) -> str:
    try:
        kind.validate_python(text)
    except ValidationError as error:
        return str(error.errors()[0]["msg"]).removeprefix("Value error, ")
    return ""
