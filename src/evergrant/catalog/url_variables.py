"""Variables inside URLs: what a value must not be able to do there, whoever gives it.

Who sees a client secret or a refresh token is decided by the host of an address. So only the operator of an app names
hosts of any domain. What a user, a browser, an upload or an answer brings is confined to domains that the entry names.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from string import ascii_lowercase, digits

from evergrant import placeholders
from evergrant.catalog.variable import Variable

# Reach another path, add a query, or turn what precedes the value into a user name.
_BREAKING = ("a/../b", "a?b", "a#b", "a@b", "a b", "a:b@c", "a\\b", "a%2fb")
_FOREIGN = (
    "evil",
    "evil.example",
    "evil.example.",
    "evil.example/",
    "example.evil",
    *("evil.com", "evil.net", "evil.org", "evil.io", "www.evil.com"),
    *("192.0.2.1", "[2001:db8::1]"),
)
OPERATOR = frozenset({"app"})
"""Whose variables may name any host."""
_SECOND_LEVEL = frozenset({"ac", "co", "com", "edu", "go", "gov", "ne", "net", "or", "org"})
"""Below a country's domain, what belongs to nobody in particular: `example.co.uk` is one owner's, `co.uk` is not."""
_NEXT = str.maketrans(f"{ascii_lowercase}{digits}", f"{ascii_lowercase[1:]}a{digits[1:]}0")
"""Makes another label of the same form."""


def url_problems(
    field: str, text: str, variables: Mapping[str, Variable], trusted: Collection[str] = OPERATOR
) -> Iterator[str]:
    """Say which variables could lead a URL to another place, by a value that their patterns allow.

    Variables of `trusted` sources may name hosts of any domain.
    """
    for match in placeholders.NAME.finditer(text):
        variable = variables.get(match[1])
        if variable is None or variable.enum or variable.values:
            continue
        if not variable.pattern:
            yield f"variables.{match[1]}: is part of a URL ({field}), so it needs a pattern or an enum"
            continue
        others = list(_other_domains(text, match, variables)) if variable.source not in trusted else []
        probes = (*_probes(text, match, variable, trusted), *others)
        hole = next((probe for probe in probes if not variable.problem_with(probe)), None)
        if hole is not None:
            yield (
                f"variables.{match[1]}.pattern: lets {hole!r} into {field}: allow only what the provider's own "
                "hosts and names need"
            )
        elif others and not _sample(variable):
            yield f"variables.{match[1]}: names a host ({field}): give an example, by which its pattern is checked"


def _sample(variable: Variable) -> str:
    return variable.default or variable.example


def _is_in_host(before: str) -> bool:
    """Tell whether what follows `before` in a URL is part of its host: not of the path, and not a port."""
    return not set("/?#:") & set(_without_scheme(before))


def _without_scheme(text: str) -> str:
    return text.removeprefix("https://").removeprefix("http://")


def _probes(text: str, match: re.Match[str], variable: Variable, trusted: Collection[str]) -> Iterator[str]:
    """Yield values that would be dangerous at this place of the URL."""
    good = _sample(variable)
    is_trusted = variable.source in trusted
    before = text[: match.start()]
    if not before:  # the value is the whole origin
        yield from ("http://provider.example", "https://a@b.example", "https://a.example?b", "https://a.example#b")
        if not is_trusted:
            yield from (f"https://{host}" for host in _FOREIGN)
            yield from ("https://evil.example/a", f"{good}.evil.example", f"{good}@evil.example")
        return
    yield from _BREAKING
    if _is_in_host(before) and not is_trusted:
        label_of_a_fixed_domain = text[match.end() :].startswith(".")
        yield from (probe for probe in _FOREIGN if "." in probe or not label_of_a_fixed_domain)
        yield from (f"{good}.evil.example",) if not label_of_a_fixed_domain else ()


def _other_domains(text: str, match: re.Match[str], variables: Mapping[str, Variable]) -> Iterator[str]:
    """Yield the variable's own sample with other labels, where these would make a host of another domain's owner."""
    if not _is_in_host(text[: match.start()]):
        return
    samples = {name: _sample(variable) or "x" for name, variable in variables.items()}
    good = samples[match[1]]
    scheme = good[: len(good) - len(_without_scheme(good))]
    mine = re.split(r"[/:]", _without_scheme(good))[0]
    rest = good[len(scheme) + len(mine) :]
    before = placeholders.fill(_without_scheme(text[: match.start()]), samples)
    after = "" if rest else re.split(r"[/?#:]", placeholders.fill(text[match.end() :], samples))[0]
    labels = f"{before}{mine}{after}".rstrip(".").split(".")
    first = len(labels) - _owned(labels)  # from here on, the labels say who owns the domain
    own = mine.split(".")
    place = before.count(".")  # the label of the host in which the value begins
    for number, label in enumerate(own):
        if place + number >= first:
            for other in ("evil", f"evil{label}", f"{label}evil", f"evil-{label}", label.translate(_NEXT)):
                yield scheme + ".".join([*own[:number], other, *own[number + 1 :]]) + rest
            yield scheme + ".".join([*own[: number + 1], "evil", *own[number + 1 :]]) + rest


def owned_domain(host: str) -> str:
    """Return the part of a host name that has an owner: `example.co.uk` of `api.example.co.uk`."""
    labels = host.lower().rstrip(".").split(".")
    return ".".join(labels[-_owned(labels) :])


def _owned(labels: list[str]) -> int:
    """Return how many labels at the end of a host name its owner."""
    under_a_country = len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL
    return 3 if under_a_country else 2
