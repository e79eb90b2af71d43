"""Tells which scopes a connection has, when a provider writes them otherwise than they were asked for.

RFC 6749 section 3.3 compares scopes letter by letter. Real providers answer in a case of their own, with or without the
address of the API in front, by longer names, without the lesser scopes that another contains, and without the scope
that a refresh token was asked for by. A person who is sent to consent once more because of that can never help.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from evergrant import placeholders

_OFFLINE = re.compile(r"(.*[._:/-])?offline([._:-]?access)?|refresh[_-]?token", re.IGNORECASE)
"""Scopes that ask for a refresh token and for nothing else: OpenID Connect's `offline_access`, X's `offline.access`,
Salesforce's `refresh_token`."""


@dataclass(frozen=True, slots=True)
class Proofs:
    """What came beside the scopes that an answer names, and proves others."""

    refresh_token: bool = False
    """Proves a scope that asks for one."""
    id_token: bool = False
    """Proves `openid` (OpenID Connect Core section 3.1.2.1)."""


NO_PROOFS = Proofs()


@dataclass(frozen=True, slots=True)
class ScopeWords:
    """How one provider spells scopes.

    In both tables a `*` stands for the same text on both sides.
    """

    aliases: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """A scope, and its other spellings."""
    includes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """A scope, and lesser ones that it contains."""
    any_prefix: bool = True
    """Whether `User.Read` and `https://graph.example.com/User.Read` are one, whatever stands in front."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Of the `{variables}` in scopes. A connection has scopes with its values filled in."""

    def filled(self, scopes: Iterable[str]) -> list[str]:
        """Return scopes with their variables filled in, each once."""
        return list(dict.fromkeys(placeholders.fill(scope, self.values) for scope in scopes))

    def missing(self, wanted: Iterable[str], held: Collection[str], proofs: Proofs = NO_PROOFS) -> list[str]:
        """Return those of the `wanted` scopes, as they are written, that somebody who has the `held` ones lacks."""
        wanted = list(dict.fromkeys(wanted))
        left = [scope for scope in wanted if scope not in held]
        if not left:
            return []
        known = self._closure(self._plain(scope) for scope in self.filled(held))
        if proofs.id_token:
            known.add("openid")
        left = [scope for scope in left if self._plain(placeholders.fill(scope, self.values)) not in known]
        if proofs.refresh_token:
            left = [scope for scope in left if not _OFFLINE.fullmatch(scope)]
        return [scope for scope in left if not self._differs_by_prefix(scope, known, wanted)]

    def granted(self, requested: Sequence[str], answered: Sequence[str], proofs: Proofs) -> list[str]:
        """Return the scopes of a token answer: those that were asked for, in the words of who asked, then the others.

        Variables are filled in.

        `answered` is what the provider names; what it does not name, but has granted, is among the former.
        """
        requested = self.filled(requested)
        lacking = set(self.missing(requested, answered, proofs))
        asked = [scope for scope in requested if scope not in lacking]
        names = ScopeWords(self.aliases, {}, self.any_prefix)
        return list(dict.fromkeys([*asked, *(scope for scope in answered if names.missing([scope], asked))]))

    def _differs_by_prefix(self, scope: str, known: Collection[str], wanted: Sequence[str]) -> bool:
        """Tell whether a scope is known but for the address in front; not if several of the wanted ones would be."""
        if not self.any_prefix:
            return False
        plain, name = self._plain(scope), _last_part(self._plain(scope))
        if plain == name:
            return any(_last_part(other) == name for other in known)
        return name in known and len({other for other in wanted if _last_part(self._plain(other)) == name}) <= 1

    def _plain(self, scope: str) -> str:
        """Return the one spelling by which all others of a scope are compared."""
        scope = scope.casefold().rstrip("/")
        for main, others in self.aliases.items():
            for other in others:
                if (same := _translated(scope, other, main)) is not None:
                    return same
        return scope

    def _closure(self, scopes: Iterable[str]) -> set[str]:
        found: set[str] = set()
        left = list(scopes)
        while left:
            scope = left.pop()
            if scope in found:
                continue
            found.add(scope)
            for greater, lesser in self.includes.items():
                left += [self._plain(one) for to in lesser if (one := _translated(scope, greater, to)) is not None]
        return found


def stands_for(written: str, scope: str) -> bool:
    """Tell whether `scope` is what is `written`, or that with a value in the place of each `{variable}`."""
    if "{" not in written:
        return written == scope
    texts = placeholders.NAME.split(written)[::2]
    return written == scope or bool(re.fullmatch(r"[^\s/]+".join(map(re.escape, texts)), scope))


def words_for(scope: str, words: Mapping[str, str]) -> str:
    """Return what a scope means, by scope or by how it is written with variables; empty where nobody has said."""
    return words.get(scope) or next((text for written, text in words.items() if stands_for(written, scope)), "")


def _translated(scope: str, pattern: str, to: str) -> str | None:
    """Return `to` with what `*` stands for in `pattern`; None where `scope` does not match that."""
    before, star, after = pattern.casefold().rstrip("/").partition("*")
    if not star:
        return to.casefold().rstrip("/") if scope == before else None
    fits = len(scope) > len(before) + len(after) and scope.startswith(before) and scope.endswith(after)
    return to.casefold().replace("*", scope[len(before) : len(scope) - len(after)]) if fits else None


def _last_part(scope: str) -> str:
    """Return what stands behind the address of an API, or a scope that has none as it is."""
    return scope.rpartition("/")[2] if "://" in scope else scope
