"""What the practice provider remembers, and the rules of its tokens. All in memory, until it ends."""

import secrets
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from joserfc import jwt
from joserfc.jwk import ECKey, Key

from evergrant import clock
from evergrant.practice.faults import Fault
from evergrant.practice.world import Person

CODE_SECONDS = 60
ID_TOKEN_SECONDS = 300


@dataclass(slots=True)
class Family:
    """One consent and every token that descends from it."""

    id: str
    client_id: str
    person: Person
    scopes: frozenset[str]
    revoked_because: str | None = None

    @property
    def revoked(self) -> bool:
        """Whether none of its tokens works any more."""
        return self.revoked_because is not None


@dataclass(slots=True)
class AccessToken:
    """An access token that was issued."""

    family: Family
    scopes: frozenset[str]
    expires_at: datetime
    revoked: bool = False

    @property
    def works(self) -> bool:
        """Whether a protected resource lets it in, now."""
        return not (self.revoked or self.family.revoked) and clock.now() < self.expires_at


@dataclass(slots=True)
class RefreshToken:
    """A refresh token that was issued; spent when it has been exchanged for the next one."""

    family: Family
    spent: bool = False
    successor: str = ""
    """What it was exchanged for."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A client that asks for itself: by its secret (RFC 6749 section 4.4), or by what its key signs (RFC 7523)."""

    family: Family
    """All tokens that it gets: nobody's consent is behind them, and none of them is a refresh token."""
    secret: str = ""
    key: Key | None = None
    """The public one, where it signs."""


@dataclass(frozen=True, slots=True)
class PendingAuthorization:
    """A valid request to /authorize, waiting for somebody's decision."""

    client_id: str
    redirect_uri: str
    scopes: frozenset[str]
    code_challenge: str
    state: str | None
    nonce: str | None
    offline: bool
    login_hint: str


@dataclass(slots=True)
class Code:
    """An authorization code, bound to the request it answers (RFC 6749 section 4.1.2)."""

    request: PendingAuthorization
    person: Person
    scopes: frozenset[str]
    expires_at: datetime
    redeemed: bool = False
    family: Family | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """What one successful call of the token endpoint issues."""

    access_token: str
    refresh_token: str | None
    id_token: str | None
    scopes: frozenset[str]


@dataclass(slots=True)
class ProviderState:
    """Everything the provider knows and counts. Tests read it, and may change its settings while it runs."""

    issuer: str
    clients: dict[str, str]
    redirect_uris: set[str]
    access_token_seconds: int
    signing_key: ECKey

    token_calls: Counter[str] = field(default_factory=Counter)
    """Requests that reached /token, by `grant_type`, whatever became of them."""
    token_errors: Counter[str] = field(default_factory=Counter)
    """Refusals of /token, by error code (RFC 6749 section 5.2). Scripted answers don't count."""
    rotations: int = 0
    """Refresh tokens that were exchanged for the next one."""
    reuse_detections: int = 0
    """Spent refresh tokens that came back; each revoked its family."""
    code_replays: int = 0
    """Spent authorization codes that came back; each revoked the family it had started."""

    presented: Counter[str] = field(default_factory=Counter)
    """How often each refresh token reached /token, whatever became of it: one that rotates must come once. Of
    machines, how often each asked, by its id."""
    on_the_wire: Counter[str] = field(default_factory=Counter)
    """Refreshes that have arrived and are not answered yet, by the id of their family."""
    unheard: list[Family] = field(default_factory=list)
    """Families whose refresh was answered when nobody was there any more to hear it."""

    token_latency: float = 0.0
    """Seconds that every call of /token takes, after its work is done."""
    held: bool = False
    """While this is true, /token does its work and keeps the answers back."""
    rotates: bool = True
    """Turned off, a refresh token stays good and a refresh brings no other (RFC 6749 section 6)."""
    forgives_repeats: bool = False
    """Turned on, a spent refresh token may come again until its successor is used, as at providers with a grace
    period; the successor that nobody heard of ends."""
    next_token_answers: deque[Fault] = field(default_factory=deque)
    """Faults for the next calls of /token, first come, first served."""

    families: list[Family] = field(default_factory=list)
    added_contacts: defaultdict[str, list[dict[str, str]]] = field(default_factory=lambda: defaultdict(list))
    """What people's clients have added, by the person's id; everybody has the same besides."""
    waiting: dict[str, PendingAuthorization] = field(default_factory=dict)
    codes: dict[str, Code] = field(default_factory=dict)
    machines: dict[str, Machine] = field(default_factory=dict)
    """By their client ids."""
    access_tokens: dict[str, AccessToken] = field(default_factory=dict)
    refresh_tokens: dict[str, RefreshToken] = field(default_factory=dict)

    @classmethod
    def new(
        cls,
        *,
        issuer: str,
        clients: Mapping[str, str],
        redirect_uris: Collection[str],
        access_token_seconds: int,
    ) -> "ProviderState":
        """Start with no tokens and a new signing key."""
        key = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256", "kid": secrets.token_hex(8)})
        return cls(issuer.rstrip("/"), dict(clients), set(redirect_uris), access_token_seconds, key)

    def may_return_to(self, redirect_uri: str) -> bool:
        """Tell whether a client may be answered there: at an address exactly, or one below a `.../*`."""
        return redirect_uri in self.redirect_uris or f"{redirect_uri.rpartition('/')[0]}/*" in self.redirect_uris

    @property
    def revoked_families(self) -> list[Family]:
        """The consents that are over; for a broker under test this list stays empty."""
        return [family for family in self.families if family.revoked]

    def renewals_of(self, access_token: str) -> int:
        """Return how often the consent that an access token belongs to was renewed."""
        known = self.access_tokens.get(access_token)
        if known is None:
            return 0
        return sum(token.spent for token in self.refresh_tokens.values() if token.family is known.family)

    def family_of(self, presented: str) -> Family | None:
        """Return the family of a refresh token, or of a machine's id; None where it is not known."""
        known = self.refresh_tokens.get(presented) or self.machines.get(presented)
        return known.family if known is not None else None

    @contextmanager
    def answering(self, presented: str) -> Iterator[Family | None]:
        """Count a call of /token as under way, if it presents what is known; yield the family."""
        if presented:
            self.presented[presented] += 1
        family = self.family_of(presented)
        if family is None:
            yield None
            return
        self.on_the_wire[family.id] += 1
        try:
            yield family
        finally:
            self.on_the_wire[family.id] -= 1

    def start_family(self, *, client_id: str, person: Person, scopes: Collection[str]) -> Family:
        """Record a consent. Tests start one here when they need a grant without a browser."""
        family = Family(secrets.token_hex(8), client_id, person, frozenset(scopes))
        self.families.append(family)
        return family

    def issue(
        self,
        family: Family,
        *,
        scopes: frozenset[str] | None = None,
        with_refresh_token: bool = True,
        nonce: str | None = None,
    ) -> Tokens:
        """Issue tokens of `family`, an id_token among them when it has the scope `openid`."""
        scopes = family.scopes if scopes is None else scopes
        access_token = f"practice_at_{secrets.token_urlsafe(24)}"
        expires_at = clock.now() + timedelta(seconds=self.access_token_seconds)
        self.access_tokens[access_token] = AccessToken(family, scopes, expires_at)
        refresh_token = None
        if with_refresh_token:
            refresh_token = f"practice_rt_{secrets.token_urlsafe(24)}"
            self.refresh_tokens[refresh_token] = RefreshToken(family)
        id_token = self._id_token(family, nonce) if "openid" in scopes else None
        return Tokens(access_token, refresh_token, id_token, scopes)

    def new_code(self, request: PendingAuthorization, *, person: Person, scopes: frozenset[str]) -> str:
        """Issue the authorization code of a decision."""
        code = secrets.token_urlsafe(24)
        self.codes[code] = Code(request, person, scopes, clock.now() + timedelta(seconds=CODE_SECONDS))
        return code

    def _id_token(self, family: Family, nonce: str | None) -> str:
        now = int(clock.now().timestamp())
        claims: dict[str, object] = {
            "iss": self.issuer,
            "sub": family.person.id,
            "aud": family.client_id,
            "iat": now,
            "exp": now + ID_TOKEN_SECONDS,
            **claims_about(family.person, family.scopes),
        }
        if nonce is not None:
            claims["nonce"] = nonce
        return jwt.encode({"alg": "ES256", "kid": self.signing_key.kid}, claims, self.signing_key)


def claims_about(person: Person, scopes: Collection[str]) -> dict[str, object]:
    """Return what `scopes` let a client know about `person` (OpenID Connect Core section 5.4)."""
    claims: dict[str, object] = {}
    if "profile" in scopes:
        claims["name"] = person.name
    if "email" in scopes:
        claims |= {"email": person.email, "email_verified": True}
    return claims
