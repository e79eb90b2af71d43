"""Compares what packages say with the app library."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from evergrant.catalog.template import Template
from scripts.audit.claims import ENDPOINTS, Claim

_ALIASES = {
    "twitter": "twitter-v2",
    "x": "twitter-v2",
    "square": "squareup",
    "intuit": "quickbooks",
    "azure": "microsoft",
    "entraid": "microsoft",
    "microsoftentraid": "microsoft",
    "hellosign": "dropbox-sign",
    "infusionsoft": "keap",
    "weixin": "wechat",
    "helpscout": "helpscout-mailbox",
    "vkid": "vk",
    "garmin": "garmin-oauth2",
    "klaviyo": "klaviyo-oauth",
    "workday": "workday-oauth",
    "posthog": "posthog-oauth",
    "calcom": "cal-com-oauth",
    "googlesheets": "google-sheet",
    "gmail": "google-mail",
    "wave": "wave-accounting",
}
"""What packages call a provider whose id is another word."""
_VERSION = re.compile(r"/v?\d+\.\d+(?=/|$)|/v?\{[^{}]*\}(?=/(dialog|oauth)/)")
_VARIABLE = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True)
class Difference:
    """One field that a package says otherwise than we."""

    field: str
    source: str
    ours: str
    theirs: str


@dataclass
class Finding:
    """What all packages together say about one entry."""

    agreeing: set[str] = field(default_factory=set)
    """Packages that have both endpoints as we have them."""
    endpoints: list[Difference] = field(default_factory=list)
    """Endpoints of packages that do not agree."""
    habits: list[Difference] = field(default_factory=list)
    """Everything else that packages which agree say otherwise: often both ways work."""

    @property
    def is_alone(self) -> bool:
        """Whether packages know the provider, and none of them has the endpoints as we have them."""
        return bool(self.endpoints) and not self.agreeing


def compare(templates: Mapping[str, Template], claims: Iterable[Claim]) -> dict[str, Finding]:
    """Return what the packages say, by the id of the entry.

    A claim is held against the entries whose name it has, and against those at whose hosts it has both endpoints. Where
    it agrees with one of a family, it says nothing against the others.
    """
    entries = {key: entry for key, entry in templates.items() if entry.app_type == "oauth"}
    found = {key: Finding() for key in entries}
    for claim in (claim for claim in claims if claim.is_whole):
        known = not any("{" in _domain(claim.facts[name][0]) for name in ENDPOINTS)
        named = {key for key in entries if is_named(claim, entries[key])}
        near = {key for key in entries if known and _is_near(claim, entries[key])}
        agreed = {key for key in named | near if all(_agrees(claim, entries[key], name) for name in ENDPOINTS)}
        for key in agreed:
            found[key].agreeing.add(claim.source)
            found[key].habits.extend(_habits(claim, entries[key]))
        if not agreed:
            for key in named or near:
                found[key].endpoints.extend(_differences(claim, entries[key]))
    for finding in found.values():
        finding.endpoints = [each for each in dict.fromkeys(finding.endpoints) if each.source not in finding.agreeing]
        finding.habits = list(dict.fromkeys(finding.habits))
    return found


def same_url(ours: str, theirs: str, defaults: Mapping[str, str] | None = None) -> bool:
    """Say whether two endpoints are one, whatever is filled in, and whatever API version and slash at the end."""
    choices = {ours, _VARIABLE.sub(lambda name: (defaults or {}).get(name[0][1:-1]) or name[0], ours)}
    return any(
        re.fullmatch(_pattern(choice), _plain(theirs)) or re.fullmatch(_pattern(theirs, origin=True), _plain(choice))
        for choice in choices
    )


def _normal(url: str) -> str:
    url = re.split(r"[?#]", url)[0]
    scheme, separator, rest = url.partition("://")
    host, slash, path = (rest if separator else url).partition("/")
    path = _VERSION.sub("", re.sub(r"/{2,}", "/", slash + path))
    return (f"{scheme}://" if separator else "") + host.lower() + path.rstrip("/")


def _pattern(url: str, origin: bool = False) -> str:
    """Return a regular expression: what is filled in may be any part of the path, or of the host.

    At the beginning it may be a whole origin, and the beginning of the path with it; `origin` says that a whole host
    may be that, too, as where a package asks for the address of somebody's own server.
    """
    url = _normal(url)
    leading = re.match(r"(https://)?\{[^{}]*\}(?=/)", url) if origin else _VARIABLE.match(url)
    parts = _VARIABLE.split(url[leading.end() :] if leading else url)
    pattern = "[^/]+".join(re.escape(part) for part in parts)
    return f"(https://)?[^/]+(/[^/]+)*{pattern}" if leading else pattern


def _plain(url: str) -> str:
    return _VARIABLE.sub("x", _normal(url))


def _host(url: str) -> str:
    return urlsplit(re.sub(r"^\{", "https://{", url)).netloc.lower()


def _domain(url: str) -> str:
    return ".".join(_host(url).split(".")[-2:])


def _squashed(name: str) -> str:
    name = re.sub(r"[^a-z0-9]", "", name.lower())
    return re.sub(r"(oauth2?|v2|oidc|openidconnect|provider|crm)+$", "", name) or name


def is_named(claim: Claim, entry: Template) -> bool:
    """Tell whether a claim is about an entry's provider, by what the package calls it."""
    name = _squashed(claim.name)
    return name in {_squashed(entry.id), _squashed(entry.name)} or _ALIASES.get(name) == entry.id


def _is_near(claim: Claim, entry: Template) -> bool:
    return all(
        any(_same_host(ours, theirs) for ours in _ours(entry, name) for theirs in claim.facts[name])
        for name in ENDPOINTS
    )


def _same_host(ours: str, theirs: str) -> bool:
    host, other = _host(ours), _host(theirs)
    if not host or not other or (host.startswith("{") and host.endswith("}")):
        return False
    pairs = ((host, other), (other, host))
    return any(re.fullmatch("[^/]+".join(map(re.escape, _VARIABLE.split(a))), _VARIABLE.sub("x", b)) for a, b in pairs)


def _ours(entry: Template, name: str) -> tuple[str, ...]:
    """Return what the entry says about a field, the way it is used first."""
    if name == "auth_method":
        return entry.token_endpoint_auth_methods_supported
    if name == "pkce":
        return ("absent",) if entry.pkce == "absent" else ("supported",)
    if name == "revocation_endpoint" and entry.revocation:
        return (entry.revocation.url,)
    if name == "refresh_endpoint" and not entry.refresh_endpoint:
        return (entry.token_endpoint, *(trade.url for trade in entry.token_exchange))
    value = str(getattr(entry, name))
    return (value,) if value else ()


def _agrees(claim: Claim, entry: Template, name: str) -> bool:
    ours, theirs = _ours(entry, name), claim.facts.get(name, ())
    if not name.endswith("_endpoint"):
        return bool(set(ours) & set(theirs))
    defaults = {key: variable.default for key, variable in entry.variables.items()}
    return any(same_url(one, other, defaults) for one in ours for other in theirs)


def _differences(claim: Claim, entry: Template) -> Iterator[Difference]:
    for name in ENDPOINTS:
        if not _agrees(claim, entry, name):
            yield Difference(name, claim.source, " or ".join(_ours(entry, name)), " or ".join(claim.facts[name]))


def _habits(claim: Claim, entry: Template) -> Iterator[Difference]:
    for name, theirs in claim.facts.items():
        if name in ("api_base", "api_call", "placement"):
            continue
        ours = _ours(entry, name)
        if name not in ENDPOINTS and ours and not _agrees(claim, entry, name):
            yield Difference(name, claim.source, " or ".join(ours), " or ".join(theirs))
