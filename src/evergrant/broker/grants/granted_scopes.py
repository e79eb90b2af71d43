"""What a consent was asked for beside what was granted, as the columns of a grant."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from evergrant.db import Grant
from evergrant.db.grant import scope_key
from evergrant.oauth2.scopes import NO_PROOFS, Proofs, ScopeWords


@dataclass(frozen=True, slots=True)
class GrantedScopes:
    """The scopes of one consent."""

    requested: tuple[str, ...]
    """What was asked for, in the words of the app; none where that is not known."""
    granted: tuple[str, ...]
    """What the provider granted: first what was asked for, in the same words, then what it has added."""

    @classmethod
    def of(
        cls, words: ScopeWords, requested: Sequence[str], answered: Sequence[str] | None, proofs: Proofs = NO_PROOFS
    ) -> Self:
        """Read what a provider `answered`; None means: as asked (RFC 6749 section 5.1). Variables are filled in."""
        requested = words.filled(requested)
        granted = requested if answered is None else words.granted(requested, answered, proofs)
        return cls(tuple(requested), tuple(granted))

    @property
    def key(self) -> str:
        """The value under which a fetch finds the grant at once: by what was asked for, if it has all of that."""
        whole = self.requested and set(self.requested) <= set(self.granted)
        return scope_key(self.requested if whole else self.granted)

    def columns(self) -> dict[str, object]:
        """Return the columns of a new grant."""
        return {"requested_scopes": list(self.requested), **self.answered_columns()}

    def answered_columns(self) -> dict[str, object]:
        """Return the columns that every answer with scopes changes."""
        return {"scopes": list(self.granted), "scope_key": self.key}


def granted_anew(words: ScopeWords, grant: Grant, answered: Sequence[str], *, with_id_token: bool) -> GrantedScopes:
    """Return the scopes of a grant after a refresh that names some: the same ones, written otherwise, stay."""
    proofs = Proofs(refresh_token=True, id_token=with_id_token or grant.id_token is not None)
    return GrantedScopes.of(words, grant.requested_scopes or grant.scopes, answered, proofs)


def proofs_of(grant: Grant) -> Proofs:
    """Return what a grant has beside its scopes."""
    return Proofs(refresh_token=grant.refresh_token is not None, id_token=grant.id_token is not None)
