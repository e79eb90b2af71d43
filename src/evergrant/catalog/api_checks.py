"""Checks an entry's `[api]` as a whole: what carries the credential, where it is sent, and what a check call needs."""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from evergrant import placeholders
from evergrant.catalog.api import Api
from evergrant.catalog.kinds import trusted_with_hosts
from evergrant.catalog.template import Template
from evergrant.catalog.url_variables import owned_domain, url_problems

_HEADER = re.compile(r"[A-Za-z0-9_-]+")
_PARAMETER = re.compile(r"[A-Za-z0-9_.\[\]$-]+")
_OF_FRAMING = frozenset({"host", "connection", "content-length", "transfer-encoding", "te", "upgrade", "expect"})
_READING = ("GET", "HEAD")


def api_problems(it: Template) -> Iterator[str]:
    """Say what is wrong with an entry's `[api]`, with the remedy."""
    yield from _base(it)
    yield from _domains(it)
    yield from _credential(it.api)
    yield from _headers(it.api)
    yield from _check(it)
    yield from _rules(it.api)


def _base(it: Template) -> Iterator[str]:
    api = it.api
    for field, url in (("base_url", api.base_url), *((f"further.{name}", url) for name, url in api.further.items())):
        if url.endswith("/"):
            yield f"api.{field}: paths begin with a slash: leave out the one at its end"
        if "?" in url:
            yield f"api.{field}: has no query: write what each call needs into api.headers, or leave it out"
    if api.verification == "confirmed" and (not api.base_url or api.sources < 2):
        yield "api.verification: 'confirmed' needs base_url and sources = 2 or more; else write 'unconfirmed'"
    if api.further and not api.base_url:
        yield "api.further: are bases beside base_url: write that first"
    before = api.base_url.partition("{token}")[0]
    if before != api.base_url:
        if "/" not in before.removeprefix("https://").removeprefix("http://"):
            yield "api.base_url: {token} can only stand in its path: a host's name is shown to everybody on the way"
        if "credential" in api.model_fields_set and api.credential.value:
            yield "api.credential: base_url has {token} already: leave the credential out"


def _domains(it: Template) -> Iterator[str]:
    """Refuse addresses of another owner's domain for which one source alone speaks: they get the credential."""
    endpoints = (it.token_endpoint, it.authorization_endpoint)
    own = {domain for url in (*endpoints, it.documentation_url) if (domain := _domain(it, url))}
    if it.api.sources >= 2 or not any(endpoints):
        return
    _, _, where = it.api.check.partition(" ")
    urls = [("base_url", it.api.base_url), *((f"further.{name}", url) for name, url in it.api.further.items())]
    for field, url in [*urls, ("check", "" if where.startswith("/") else where)]:
        if (domain := _domain(it, url)) and domain not in own:
            yield (
                f"api.{field}: {domain} is not the domain of the entry's endpoints: that takes api.sources = 2 or "
                "more that agree; else leave it out"
            )


def _domain(it: Template, url: str) -> str:
    """Return the domain that somebody owns, of the host in a URL; empty where there is none to tell."""
    samples = {name: variable.default or variable.example for name, variable in it.variables.items()}
    filled = placeholders.fill(url, {name: value for name, value in samples.items() if value})
    try:
        host = urlsplit(filled).hostname or ""
    except ValueError:
        return ""
    return owned_domain(host) if "." in host and "{" not in host else ""


def _credential(api: Api) -> Iterator[str]:
    it, given = api.credential, api.credential.model_fields_set
    if it.place == "basic":
        for name in sorted(given & {"name", "prefix", "value"}):
            yield f'api.credential.{name}: is not of in = "basic", which has username and password: leave it out'
    else:
        for name in sorted(given & {"username", "password"}):
            yield f'api.credential.{name}: only of in = "basic": write that, or use value'
    if it.place == "query":
        if "prefix" in given:
            yield 'api.credential.prefix: only of in = "header": write it into value'
        if "name" not in given:
            yield 'api.credential.name: is required with in = "query": the name of the parameter'
        elif not _PARAMETER.fullmatch(it.name):
            yield f"api.credential.name {it.name!r}: use letters, digits and _ . - [ ] $"
    if it.place == "header":
        if not _HEADER.fullmatch(it.name) or it.name.lower() in _OF_FRAMING:
            yield f"api.credential.name {it.name!r}: use a header's name, of letters, digits, '-' and '_'"
        if not (it.prefix + it.value).isascii() or not (it.prefix + it.value).isprintable():
            yield "api.credential: prefix and value can have visible ASCII only"


def _headers(api: Api) -> Iterator[str]:
    own = "authorization" if api.credential.place == "basic" else api.credential.name.lower()
    for name in api.headers:
        if name.lower() in _OF_FRAMING:
            yield f"api.headers.{name}: each call has its own: leave it out"
        elif name.lower() == own and api.credential.place != "query":
            yield f"api.headers.{name}: carries the credential: write it into api.credential"
    for kind, names in (("after", api.rate.after), ("at", api.rate.at), ("remaining", api.rate.remaining)):
        for name in names:
            if not _HEADER.fullmatch(name):
                yield f"api.rate.{kind} {name!r}: use a header's name, of letters, digits, '-' and '_'"


def _check(it: Template) -> Iterator[str]:
    api = it.api
    method, _, where = api.check.partition(" ")
    if not api.check:
        for name in ("check_body", "check_ok", "check_ok_values"):
            if getattr(api, name):
                yield f'api.{name}: belongs to a check: add one, like check = "GET /users/me"'
        return
    if where.startswith("/") and not api.base_url:
        yield "api.check: is a path below base_url: write base_url, or the whole https URL"
    if method not in _READING and not (api.check_body or api.check_ok or api.check in api.safe):
        yield f"api.check: a check only reads: use GET, say check_body or check_ok, or put {api.check!r} into api.safe"
    if method in _READING and api.check_body:
        yield "api.check_body: a GET has none: write POST, or leave it out"
    if api.check_ok_values and not api.check_ok:
        yield "api.check_ok_values: say in check_ok where they stand"
    if "graphql" in where.lower() and not api.check_ok:
        yield 'api.check_ok: GraphQL answers 200 to everything: say what a good answer has, like "/data/me"'
    if method == "HEAD" and api.check_ok:
        yield "api.check_ok: an answer to HEAD has no body: write GET"
    url = f"{api.base_url}{where}" if where.startswith("/") else where
    own = {name: it.variables[name] for name in placeholders.names_in(where) if name in it.variables}
    yield from url_problems("api.check", url, own, trusted_with_hosts(it))


def _rules(api: Api) -> Iterator[str]:
    for rule in api.safe:
        if not rule.startswith("POST "):
            yield f"api.safe {rule!r}: is for calls that read by POST; every GET is safe already: leave it out"
    for number, each in enumerate(api.expired):
        if each.status < 300 and not each.pointer:
            yield f"api.expired.{number}: every good answer has that status: add a pointer, like /error"
        if each.values and not each.pointer:
            yield f"api.expired.{number}.values: say in pointer where they stand"
