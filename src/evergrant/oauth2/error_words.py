"""What the error codes of RFC 6749 section 5.2, and the words that servers use in their place, mean.

Codes first: they are made to be told apart. Words count only where no code says what is meant, and only where they say
of the very thing that was presented that it is no good. That a parameter is missing is no end of a consent.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto

from evergrant.errors import Refusal
from evergrant.oauth2.error_answer import ErrorAnswer
from evergrant.oauth2.quirks import Quirks, plain_code


class Meaning(Enum):
    """What an answer means where it is not the provider's refusal of what was asked."""

    LATER = auto()
    """A matter of time."""
    TOO_MUCH = auto()
    """A matter of how much is asked."""
    DEAD = auto()
    """What was presented can never be used again."""


@dataclass(frozen=True, slots=True)
class Presented:
    """What a request presents to the provider, and how providers say that it is no good."""

    dead: frozenset[str] = frozenset()
    """Error codes."""
    words: re.Pattern[str] | None = None
    """What a sentence says, written by `_sentence`."""
    is_a_grants: bool = False
    """It is a token of a grant: the words of the provider's catalogue entry are about it."""


_NO_GOOD = (
    r"(?:invalid(?:ated)?|expired?|revoked|unknown|malformed|inactive|unrecogni[sz]ed|blacklisted|deleted|incorrect"
    r"|wrong|bad|reused|consumed|corrupt(?:ed)?|no longer (?:valid|active|usable)|not exist"
    r"|not (?:valid|active|found|recogni[sz]ed|known)|(?:already|previously) (?:been )?(?:used|redeemed|consumed)"
    r"|been (?:used|redeemed|reused))"
)
_HELPERS = (
    r"(?:(?:is|was|has|have|had|are|does|do|did|could|can|either|already|been|be|it|that|you|which|the|this|in|your"
    r"|request|string|value|parameter|provided|supplied|presented|given|sent|used|for|user) )*"
)
_ASIDE = (
    r"(?:(?:or|and|an?|the|your|this|oauth2?|provided|supplied|given|access|already|expired|invalid|revoked|used) )*"
)
_ANOTHER_THING = (
    r"(?! ?(?:type|types|endpoint|url|uri|format|auth|method|request|scope|scopes|client|secret|verifier|challenge"
    r"|redirect|audience|header|signature|exchange)\b)"
)


def _about(thing: str) -> re.Pattern[str]:
    """Return what finds a sentence by which `thing` is no good: "invalid refresh token", "refresh token not found"."""
    thing = rf"\b{thing}\b"
    before = rf"\b(?:{_NO_GOOD}|no such) {_ASIDE}{thing}{_ANOTHER_THING}"
    behind = rf"{thing} {_HELPERS}{_NO_GOOD}\b{_ANOTHER_THING}"
    unfound = (
        rf"\b(?:not|unable to|failed to) (?:find|locate|decode|decrypt|recogni[sz]e) {_ASIDE}{thing}{_ANOTHER_THING}"
    )
    return re.compile(f"{before}|{behind}|{unfound}")


_OTHER_TOKENS = "".join(
    rf"(?<!{kind} )" for kind in ("access", "id", "bearer", "client", "csrf", "api", "assertion", "security")
)
_REFRESH_TOKEN = _about(rf"(?:refresh ?tokens?|{_OTHER_TOKENS}tokens?)")
_GRANT = re.compile(
    r"\b(?:grant|consent|session) (?:(?:is|was|has|been|already) )*(?:revoked|expired|withdrawn|not found)\b"
)
_ABSENT = re.compile(
    r"\b(?:missing|absent|empty|blank|not (?:been )?(?:provided|supplied|present|sent|specified|included|set|given)"
    r"|must (?:be )?(?:provided?|present|sent|specif(?:y|ied)|included?|contain|have|supply|supplied)"
    r"|token (?:parameter |field |value )?(?:is |was )?required|required (?:parameter|field|argument|param)"
    r"|(?:parameter|field) (?:is |was )?required)\b"
)
"""A request that lacks something: nothing is said about any token."""

_DEAD_GRANT = frozenset(
    {
        "invalid_grant",  # RFC 6749 section 5.2; the others say the same in providers' own words
        "access_revoked",
        "authorization_revoked",
        "bad_refresh_token",
        "consent_required",
        "consent_revoked",
        "expired_refresh_token",
        "expired_token",
        "grant_expired",
        "grant_not_found",
        "grant_revoked",
        "interaction_required",
        "invalid_refresh_token",
        "invalid_token",
        "login_required",
        "refresh_token_expired",
        "refresh_token_revoked",
        "revoked_token",
        "session_expired",
        "session_not_found",
        "token_already_used",
        "token_expired",
        "token_inactive",
        "token_not_found",
        "token_not_valid",
        "token_revoked",
    }
)
REFRESH_TOKEN = Presented(_DEAD_GRANT, re.compile(f"{_REFRESH_TOKEN.pattern}|{_GRANT.pattern}"), is_a_grants=True)
ACCESS_TOKEN = Presented(_DEAD_GRANT, _about(r"tokens?"), is_a_grants=True)
"""Where it is traded for another, or revoked."""
CODE = Presented(
    (_DEAD_GRANT - {"invalid_token"})
    | {"bad_verification_code", "invalid_code", "code_expired", "code_already_used", "expired_code"},
    _about(r"(?:auth(?:ori[sz]ation)? ?code|(?<!status )(?<!error )(?<!response )code|grant)"),
)
CREDENTIALS = Presented(is_a_grants=True)
"""What stays, and is presented for every token: a refusal ends nothing."""
NOTHING = Presented()
"""For a registration: nothing can be used up there."""

_TOO_MUCH = frozenset(
    {
        "over_request_rate_limit",
        "rate_limit",
        "rate_limit_exceeded",
        "rate_limited",
        "ratelimited",
        "slow_down",
        "throttled",
        "too_many_request",
        "too_many_requests",
    }
)
_LATER = frozenset({"server_error", "service_unavailable", "temporarily_unavailable"})
_THROTTLED = re.compile(
    r"\b(?:too many (?:\w+ ){0,3}requests?|too many (?:\w+ ){0,2}(?:attempts|calls)|rate ?limit|rate exceeded"
    r"|requests? (?:rate|limit|quota)|quota exceeded|throttl\w*)\b"
)
"""Being held back is about how often one asks, whatever code stands beside it."""
_SOON = re.compile(
    r"\b(?:(?:try|retry) (?:\w+ ){0,3}(?:later|shortly|soon|again in)|retry your request|temporar(?:y|ily)"
    r"|wait (?:\w+ ){0,3}(?:minutes?|seconds?))\b"
)
"""Weaker: a code that is known counts more."""

_CLIENT = {
    "invalid_client": Refusal.CLIENT_UNKNOWN,
    "unauthorized_client": Refusal.CLIENT,
    # GitHub's and Slack's words, and others like them
    "bad_client_secret": Refusal.CLIENT,
    "client_not_found": Refusal.CLIENT,
    "incorrect_client_credentials": Refusal.CLIENT,
    "invalid_client_id": Refusal.CLIENT,
    "invalid_client_secret": Refusal.CLIENT,
    "unknown_client": Refusal.CLIENT,
}
_REQUEST = {
    "invalid_request": Refusal.INVALID_REQUEST,
    "invalid_scope": Refusal.REQUEST,
    "invalid_target": Refusal.REQUEST,
    "unsupported_grant_type": Refusal.REQUEST,
    "unsupported_token_type": Refusal.REQUEST,
}
_STATUS_WORDS = frozenset({"unauthorized", "http_401"})
"""Codes that say no more than the status does."""


def meaning_of(said: ErrorAnswer, presented: Presented, quirks: Quirks) -> Meaning | Refusal:
    """Decide what an answer means, by everything in it that may be a code or an explanation."""
    if said.status == 429:
        return Meaning.TOO_MUCH
    if said.status in (408, 425) or not (200 <= said.status < 300 or 400 <= said.status < 500):
        return Meaning.TOO_MUCH if said.status == 503 and _TOO_MUCH.intersection(_known_codes(said)) else Meaning.LATER
    if presented.is_a_grants and any(
        own.fits(said.status, said.codes, said.texts) for own in quirks.dead_refresh_token
    ):
        return Meaning.DEAD
    sentences = [_sentence(text) for text in (*said.codes, *said.texts)]
    if any(_THROTTLED.search(sentence) for sentence in sentences):
        return Meaning.TOO_MUCH
    refusal = Refusal.UNCLEAR
    for code in _known_codes(said):
        if code in _TOO_MUCH:
            return Meaning.TOO_MUCH
        if code in _LATER:
            return Meaning.LATER
        if code in presented.dead:
            return Meaning.DEAD
        if code in _CLIENT:
            return _CLIENT[code]
        if refusal is Refusal.UNCLEAR:
            refusal = _REQUEST.get(code, refusal)
    if refusal is Refusal.REQUEST:
        return refusal
    if any(_SOON.search(sentence) for sentence in sentences):
        return Meaning.LATER
    if said.is_reported and _says_dead(sentences, presented):
        return Meaning.DEAD
    if said.status == 401 and (not said.is_readable or {plain_code(code) for code in said.codes} <= _STATUS_WORDS):
        return Refusal.UNSAID
    return refusal


def _says_dead(sentences: Iterable[str], presented: Presented) -> bool:
    if presented.words is None:
        return False
    return any(presented.words.search(text) and not _ABSENT.search(text) for text in sentences)


def _known_codes(said: ErrorAnswer) -> Iterator[str]:
    """Yield everything in an answer that may be a code, as RFC 6749 would write it, the most telling first."""
    for text in (*said.codes, *said.texts):
        if len(text) <= 100:  # longer ones are no codes
            yield from dict.fromkeys(_spellings(text))


def _spellings(text: str) -> Iterator[str]:
    """Yield what a code may be: itself, and its last and first part where it is dotted, a URI or has a remark behind.

    `InvalidGrant`, `oauth.v2.InvalidRefreshToken`, `urn:ietf:params:oauth:error:invalid_grant`,
    `https://errors.example/invalid-grant` and `invalid_grant: it has expired` are known in the wild.
    """
    parts = [part.strip() for part in re.split(r"[.:/#]", text)]
    for part in (text, *(part for part in (parts[-1], parts[0]) if " " not in part)):
        code = plain_code(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", part))
        yield code
        yield re.sub(r"_(?:error|exception)$", "", code)


def _sentence(text: str) -> str:
    """Write a sentence in small letters and plain words: `Invalid "refresh_token".` is "invalid refresh token"."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text[:2000])
    words = " ".join(re.findall(r"[a-z0-9]+", apart.lower()))
    return re.sub(r"n t\b", " not", words)
