"""Compares what packages say of providers' APIs with the entries': the base, and where the credential goes."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from evergrant.catalog.template import Template
from evergrant.catalog.url_variables import owned_domain
from scripts.audit.claims import Claim
from scripts.audit.compare import Difference, is_named, same_url

_OF_A_KIND = re.compile(r"(?<=.)-(api|api-key|api-token|basic|cc|jwt|key|oauth|oauth2?-cc|private-app|token)$")
"""How packages tell the ways to authenticate at one provider apart."""


@dataclass
class ApiFinding:
    """What all packages together say about one entry's API."""

    agreeing: set[str] = field(default_factory=set)
    """Packages that call the same API: the same host, and no other path."""
    differing: list[Difference] = field(default_factory=list)

    @property
    def other_bases(self) -> list[Difference]:
        """What packages have that know another base."""
        return [each for each in self.differing if each.field == "api.base_url"]

    @property
    def is_alone(self) -> bool:
        """Whether packages know the API's base, and none of them has the entry's."""
        return bool(self.other_bases) and not self.agreeing

    @property
    def is_foreign(self) -> bool:
        """Whether they even have it at another owner's domain: the credential would go to somebody else."""
        return self.is_alone and not any(_domain(each.ours) in ("", _domain(each.theirs)) for each in self.other_bases)


def compare_apis(templates: Mapping[str, Template], claims: Iterable[Claim]) -> dict[str, ApiFinding]:
    """Return what the packages say about the entries that have a base, by their ids.

    A package that only calls some address of an API agrees where that is below the base, and says nothing where it is
    not. The credential's place counts only in packages that agree on the base.
    """
    entries = {key: entry for key, entry in templates.items() if entry.api.base_url}
    found = {key: ApiFinding() for key in entries}
    for claim in claims:
        plain = Claim(claim.source, _OF_A_KIND.sub("", claim.name), claim.facts)
        for key, entry in entries.items():
            if is_named(claim, entry) or is_named(plain, entry):
                _hold(found[key], claim, entry)
    for finding in found.values():
        finding.differing = [
            each
            for each in dict.fromkeys(finding.differing)
            if each.field != "api.base_url" or each.source not in finding.agreeing
        ]
    return found


def _hold(finding: ApiFinding, claim: Claim, entry: Template) -> None:
    bases, calls = claim.facts.get("api_base", ()), claim.facts.get("api_call", ())
    others = [base for base in bases if _domain(base)]  # what is known at run time only says nothing against ours
    if any(same_base(base, theirs, entry) for base in _bases(entry) for theirs in (*bases, *calls)):
        finding.agreeing.add(claim.source)
        ours, theirs = _placement(entry), claim.facts.get("placement", ())
        # An OAuth token and a key of one provider go different ways, and a package that says nothing means Bearer.
        if theirs and ours not in theirs and entry.app_type == "apikey":
            finding.differing.append(Difference("api.credential", claim.source, ours, " or ".join(theirs)))
    elif others:
        finding.differing.append(Difference("api.base_url", claim.source, entry.api.base_url, " or ".join(others)))


def same_base(ours: str, theirs: str, entry: Template) -> bool:
    """Tell whether two bases are of one API: one host, whatever is filled in, and one path may go on where one ends."""
    defaults = {name: variable.default for name, variable in entry.variables.items()}
    (origin, path), (other, other_path) = _parted(ours), _parted(theirs)
    if not same_url(origin, other, defaults):
        return False
    return all(one == two or "{" in one + two for one, two in zip(path, other_path, strict=False))


def _domain(url: str) -> str:
    """Return the domain of a URL that has an owner; empty where a variable stands for it."""
    host = url.partition("://")[2].partition("/")[0].partition(" ")[0]
    domain = owned_domain(host)
    return "" if "{" in domain or "." not in domain else domain


def _bases(entry: Template) -> tuple[str, ...]:
    return (entry.api.base_url, *entry.api.further.values())


def _parted(url: str) -> tuple[str, list[str]]:
    scheme, separator, rest = url.partition("://")
    host, _, path = (rest if separator else url).partition("/")
    return (f"{scheme}://" if separator else "") + host, [part for part in re.split(r"[/?]", path) if part]


def _placement(entry: Template) -> str:
    credential = entry.api.credential
    return "basic" if credential.place == "basic" else f"{credential.place} {credential.name.lower()}"
