"""Everything evergrant raises on purpose.

EvergrantError                           status  code
├── InvalidRequest
│   ├── MalformedRequest                 400     E011001
│   ├── MissingArgument                  400     E011002
│   └── InvalidValue                     400     E011003
├── AuthenticationFailed                 401     E011005
├── PermissionDenied                     403     E011006
│   ├── SignInTooOld                 403     E011006   (the console: sign in again)
│   ├── CallsUsedUp                  403     E111512   (a session's `maxCalls`)
│   └── ApprovalRefused              403     E111514
├── NotFound                             404     E011004
│   ├── AppNotFound                      404     E111503
│   ├── LinkIsOver                   404     E011004   (a one-time link to the console)
│   ├── NoApiAddress                 404     E111510   (the proxy: nobody knows where the app's API is)
│   └── TokenNotFound                    404     E111504
│       └── ReauthorizationRequired      404     E111504
├── AlreadyExists                        409     E111507
│   └── ChangedMeanwhile                 409     E111507   (the console: two operators save one app)
├── RefreshTokenRefused                  400     E111508   (an upload with `verifyRefresh`)
│   └── CredentialsRefused               400     E111508   (an upload with `verify`)
├── SeveralConnections                   409     E111511   (the proxy: which one is never guessed)
├── RequestTooLarge                      413     E011008
├── NotConnected                         424     E111504   (the proxy: 404 is the provider's own word too often)
├── ApprovalNeeded                       428     E111513
├── RateLimited                          429     E130429
├── UpstreamError
│   ├── UpstreamUnavailable              503     E111505
│   │   └── TooLateToSend                503     E111505
│   ├── AnswerLost                       504     E111515   (the proxy: it was sent, and nobody answered)
│   └── UpstreamRejected                 502     E111506
│       ├── AnswerUnusable               502     E111506   (the proxy: the API's answer cannot be handed on)
│       ├── GrantRefused                 502     E111506
│       └── EgressRefused                502     E111506
├── ConnectFailed                        400     E111509   (a browser's trip ended without a grant)
├── Unavailable                          503     E011009   (ourselves: the database is away)
│   ├── Busy                             503     E011009   (ourselves: the database has not come to it)
│   └── KeyServiceUnavailable            503     E011009   (the service that holds the master key is away)
└── OperatorError                        500     E011000
    ├── ConfigurationError
    ├── MigrationsPending
    ├── SchemaTooNew
    ├── UpgradeHeldUp
    ├── MasterKeyRefused
    └── CannotOpenSealed

A class's docstring is its default message, so it is written once and for whoever reads the answer. What only the
operator may know goes to the log, never into a message.
"""

from collections.abc import Mapping
from enum import Enum, auto
from math import ceil
from typing import Any, ClassVar, Self


class EvergrantError(Exception):
    """Something went wrong inside evergrant."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "E011000"
    retry_after: int | None = None
    """Seconds after which the same call is worth another try, if that is known."""

    def __init__(self, message: str | None = None, *, details: Mapping[str, Any] | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        self.details: dict[str, Any] = dict(details or {})
        super().__init__(self.message)


def _said(problems: tuple[tuple[str, str], ...]) -> str:
    return "; ".join(f"{field}: {problem}" for field, problem in problems)


def _fields(problems: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    return {"fields": [{"field": field, "problem": problem} for field, problem in problems]}


class InvalidRequest(EvergrantError):
    """The request is invalid."""

    status = 400
    code = "E011001"

    @classmethod
    def of(cls, *problems: tuple[str, str]) -> Self:
        """Build the error for `(field, problem)` pairs; the message names each field and what to do about it."""
        return cls(_said(problems), details=_fields(problems))

    def under(self, parent: str) -> Self:
        """Return the same error for a call that takes these fields as members of `parent`."""
        return self.of(*((f"{parent}.{entry['field']}", entry["problem"]) for entry in self.details.get("fields", ())))


class MalformedRequest(InvalidRequest):
    """The request body is not what this call takes."""


class MissingArgument(InvalidRequest):
    """A required argument is missing."""

    code = "E011002"


class InvalidValue(InvalidRequest):
    """An argument has a value that cannot be used."""

    code = "E011003"


class AuthenticationFailed(EvergrantError):
    """Send 'Authorization: Bearer <PROJECT_ID>:<MANAGEMENT_KEY>' with a key that is valid for the project."""

    status = 401
    code = "E011005"


class PermissionDenied(EvergrantError):
    """This credential is valid but may not do that."""

    status = 403
    code = "E011006"


class SignInTooOld(PermissionDenied):
    """This takes a sign-in that is younger than 15 minutes: sign in again."""


class CallsUsedUp(PermissionDenied):
    """This session has made as many calls as it may: mint another."""

    code = "E111512"


class ApprovalRefused(PermissionDenied):
    """This request was refused, or its approval is for another request, used or over."""

    code = "E111514"


class NotFound(EvergrantError):
    """There is nothing at this address."""

    status = 404
    code = "E011004"


class AppNotFound(NotFound):
    """There is no outbound app with this id in the project."""

    code = "E111503"


class LinkIsOver(NotFound):
    """This link was used already, or is too old: each works once, for a few minutes."""


class NoApiAddress(NotFound):
    """Nobody knows where this app's API is: set apiBaseUrl."""

    code = "E111510"


class TokenNotFound(NotFound):
    """Nobody has connected this app for this owner with these scopes: send the user through app/connect."""

    code = "E111504"


class ReauthorizationRequired(TokenNotFound):
    """This connection no longer works: the user must connect again."""

    def __init__(
        self, message: str | None = None, *, last_refresh_error: str = "", provider_error: str = "", grant_id: str = ""
    ) -> None:
        """`provider_error` is the provider's own code, and `grant_id` says which, for whoever handles this error."""
        super().__init__(
            message,
            details={"reason": "reauthorization_required", "lastRefreshError": last_refresh_error},
        )
        self.provider_error = provider_error
        self.grant_id = grant_id


class AlreadyExists(EvergrantError):
    """This id or name is already taken."""

    status = 409
    code = "E111507"

    @classmethod
    def of(cls, *problems: tuple[str, str]) -> Self:
        """Build the error for `(field, problem)` pairs, as `InvalidRequest.of`."""
        return cls(_said(problems), details=_fields(problems))


class ChangedMeanwhile(AlreadyExists):
    """Somebody else has saved this app since you opened it: nothing was overwritten."""


class RefreshTokenRefused(EvergrantError):
    """The provider refused the refresh token; nothing was stored."""

    status = 400
    code = "E111508"

    def __init__(self, message: str | None = None, *, provider_error: str = "") -> None:
        """`provider_error` is the provider's own code (RFC 6749 section 5.2)."""
        super().__init__(message, details={"providerError": provider_error} if provider_error else None)


class CredentialsRefused(RefreshTokenRefused):
    """The provider refused the credentials; nothing was stored."""


class SeveralConnections(EvergrantError):
    """Several connections match: say which, by Evergrant-External-Identifier or Evergrant-Scopes."""

    status = 409
    code = "E111511"


class NotConnected(EvergrantError):
    """Nobody has connected this app for this owner with these scopes, or the connection no longer works."""

    status = 424
    code = "E111504"


class ApprovalNeeded(EvergrantError):
    """The owner has to approve this very request first: send it again with Evergrant-Approval."""

    status = 428
    code = "E111513"


class RequestTooLarge(EvergrantError):
    """The request body is larger than this call accepts."""

    status = 413
    code = "E011008"


class RateLimited(EvergrantError):
    """Too many requests: wait for as many seconds as Retry-After says, and then go on more slowly."""

    status = 429
    code = "E130429"

    def __init__(self, *, limit: int, wait_seconds: float) -> None:
        """`limit` is what may be done in each period of the limit: a second, for most."""
        super().__init__()
        self.limit = limit
        self.retry_after = max(1, ceil(wait_seconds))


class UpstreamError(EvergrantError):
    """The provider did not do what was asked of it."""

    status = 502

    def __init__(
        self,
        message: str | None = None,
        *,
        provider_error: str = "",
        provider_description: str = "",
    ) -> None:
        """`provider_error` is the provider's own code (RFC 6749 section 5.2), `provider_description` its own words."""
        details = {"providerError": provider_error} if provider_error else {}
        super().__init__(message, details=details)
        self.provider_error = provider_error
        self.provider_description = provider_description


class AnswerLost(UpstreamError):
    """The request was sent and no answer came: whether the provider has acted on it is not known."""

    status = 504
    code = "E111515"

    def __init__(self, message: str | None = None, *, on_kept_connection: bool = False) -> None:
        """`on_kept_connection`: the provider closed a connection that it had answered on before, which it may always.

        What is idempotent is safe to repeat then, on a new one.
        """
        super().__init__(message)
        self.on_kept_connection = on_kept_connection


class Trouble(Enum):
    """What keeps a provider from answering as it should, which says whose trouble it is."""

    SILENCE = auto()
    """No connection, no answer in time, a reset, a 5xx, nonsense: the address's own."""
    NAME = auto()
    """Its name could not be looked up: the name's."""
    LIMIT = auto()
    """It has answered that too much is asked of it: that one client's, at that address."""
    OURS = auto()
    """Nothing was asked: this process held the call back."""


class UpstreamUnavailable(UpstreamError):
    """The provider is not answering as it should right now: nothing is wrong with the grant, try again later."""

    status = 503
    code = "E111505"
    retry_after = 5

    def __init__(
        self,
        message: str | None = None,
        *,
        retry_after: int | None = None,
        in_doubt: bool = False,
        trouble: Trouble = Trouble.SILENCE,
        provider_error: str = "",
        provider_description: str = "",
    ) -> None:
        """`retry_after` is in seconds, from the provider's own `Retry-After` where it sent one.

        `in_doubt`: the provider may have done what was asked, and only its answer was lost.
        """
        super().__init__(message, provider_error=provider_error, provider_description=provider_description)
        self.provider_retry_after = retry_after
        self.in_doubt = in_doubt
        self.trouble = trouble
        if retry_after is not None:
            self.retry_after = retry_after


class TooLateToSend(UpstreamUnavailable):
    """This process stood still for longer than it had time to make the call: nothing was sent."""

    def __init__(self) -> None:
        """Take the one message that there is."""
        super().__init__(retry_after=1, trouble=Trouble.OURS)


class Refusal(Enum):
    """What a refusal is about, as far as the provider's answer says. Decided on its words before any is redacted."""

    OURS = auto()
    """Nothing was asked: the app lacks something, or its address may not be called."""
    CLIENT_UNKNOWN = auto()
    """`invalid_client`: the provider does not, or no longer, know the client, or its secret is wrong."""
    CLIENT = auto()
    """The client, in other words."""
    UNSAID = auto()
    """A 401 without a reason, which may be the client's or the token's."""
    REQUEST = auto()
    """What was asked for: a scope, a resource, a kind of grant."""
    INVALID_REQUEST = auto()
    """`invalid_request`: some servers say that of a bad token."""
    UNCLEAR = auto()


class UpstreamRejected(UpstreamError):
    """The provider refuses this app's registration: the operator must correct the app, users need not reconnect."""

    code = "E111506"

    def __init__(
        self,
        message: str | None = None,
        *,
        provider_error: str = "",
        provider_description: str = "",
        said: str = "",
        refusal: Refusal = Refusal.OURS,
        fingerprint: str = "",
    ) -> None:
        """`said` is what the provider said, as a person may see it.

        `fingerprint` is the same for two answers that differ only in numbers, ids and what was presented.
        """
        super().__init__(message, provider_error=provider_error, provider_description=provider_description)
        self.said = said
        self.refusal = refusal
        self.fingerprint = fingerprint

    def reworded(self, message: str, kind: "type[UpstreamRejected]") -> "UpstreamRejected":
        """Return the same refusal with another message, blaming the app or not."""
        return kind(
            message,
            provider_error=self.provider_error,
            provider_description=self.provider_description,
            said=self.said,
            refusal=self.refusal,
            fingerprint=self.fingerprint,
        )


class AnswerUnusable(UpstreamRejected):
    """The API's answer cannot be handed on: it is garbled, can be read in two ways, or cannot be looked into."""

    def __init__(self, message: str) -> None:
        """Say what is wrong with it."""
        super().__init__(message, provider_error="unusable_answer")


class GrantRefused(UpstreamRejected):
    """The provider refuses this connection, and not the app: the message has its words, and it is asked again later."""


class EgressRefused(UpstreamRejected):
    """This address may not be called: it is not public, and EVERGRANT_EGRESS_ALLOW does not open it."""


class ConnectFailed(EvergrantError):
    """This connection could not be made."""

    status = 400
    code = "E111509"

    def __init__(self, error: str, description: str) -> None:
        """`error` is an OAuth error code (RFC 6749 section 4.1.2.1) or one of ours; `description` is for a person."""
        super().__init__(description, details={"error": error})
        self.error = error


class Unavailable(EvergrantError):
    """evergrant cannot reach its database right now: try again shortly."""

    status = 503
    code = "E011009"
    retry_after = 2


class Busy(Unavailable):
    """evergrant's database has too much to do right now: try again shortly."""


class KeyServiceUnavailable(Unavailable):
    """evergrant cannot reach the service that holds its master key right now: try again shortly."""


class OperatorError(EvergrantError):
    """evergrant is not set up correctly: its operator finds the reason in the log."""


class ConfigurationError(OperatorError):
    """A setting is missing or wrong."""


class MigrationsPending(OperatorError):
    """The database schema is not the one this version needs: run 'evergrant db upgrade'."""


class SchemaTooNew(OperatorError):
    """A later version of evergrant made this schema, and this one cannot run on it: install the later version."""


class UpgradeHeldUp(OperatorError):
    """The schema was not upgraded, because a transaction holds a table: end it (see pg_stat_activity), try again."""


class MasterKeyRefused(OperatorError):
    """The service that holds the master key does not let evergrant use it."""


class CannotOpenSealed(OperatorError):
    """A sealed value does not open: its master key is not configured, or it was moved or altered."""
