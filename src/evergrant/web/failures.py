"""What visitors' pages say when something did not work: a heading says what happened, a text what to do next.

Our errors' own messages are for programs and their makers. What is not listed here is ours to mend.
"""

from dataclasses import dataclass

from evergrant.errors import (
    ConnectFailed,
    EvergrantError,
    InvalidRequest,
    NotFound,
    RateLimited,
    RequestTooLarge,
    Unavailable,
    UpstreamRejected,
    UpstreamUnavailable,
)
from evergrant.web.locale import noted as _


@dataclass(frozen=True, slots=True)
class Failure:
    """What to say, in English; `locale.gettext` has it in other languages."""

    heading: str
    text: str
    starts_again: bool = False
    """Whether the person has to go back and start again."""
    says_why: bool = False
    """Whether the error's own message helps whoever reads it, which is in English."""
    is_a_no: bool = False
    """Whether somebody wanted it so: there is nothing to mend, and nothing to look up."""


_ONCE = _("Each link works once, for 10 minutes.")
_OURS = _("We could not finish this")
_NOTHING = _("Nothing was connected.")
_AWAY = Failure(
    _("The provider does not answer right now"), _("Nothing is wrong with your account. Try again in some minutes.")
)
_CONNECTING = {
    "access_denied": Failure(
        _("Nothing was connected"), _("You said no, or the provider did. Nothing was stored."), is_a_no=True
    ),
    "ticket_used": Failure(_("This link was used already"), _ONCE, starts_again=True),
    "ticket_expired": Failure(_("This link is too old"), _ONCE, starts_again=True),
    "invalid_ticket": Failure(
        _("This link is not valid"), _("A part of it is missing, or it is long over."), starts_again=True
    ),
    "expired": Failure(_("This took too long"), _NOTHING, starts_again=True),
    "browser_mismatch": Failure(
        _("Finish in the browser where you began"),
        _("The connection was started in another browser. Go on there, or start again in this one, with cookies on."),
    ),
    "no_cookie": Failure(
        _("Your browser blocks our cookie"),
        _("It shows that it is still you who comes back. Allow cookies for this page."),
        starts_again=True,
    ),
    "cross_site": Failure(
        _("This did not come from our page"),
        _("This form can only be sent from our own page. Nothing was done."),
        starts_again=True,
    ),
    "invalid_state": Failure(
        _("This answer is not expected"),
        _("It belongs to no connection that was started here, or to one that is long over."),
        starts_again=True,
    ),
    "invalid_response": Failure(
        _("This answer cannot be read"), _("What was sent is not what we asked for."), starts_again=True
    ),
    "not_proved": Failure(
        _("It is not known whose browser this is"), _("You have to sign in before you can go on."), starts_again=True
    ),
    "app_changed": Failure(
        _("The connection was changed meanwhile"),
        _("Somebody changed its addresses while you were on your way. Nothing was stored."),
        starts_again=True,
    ),
    "callback_mismatch": Failure(
        _("The answer came to another address"),
        _("It is not the address that was asked for. Nothing was stored. Whoever sent you here has to mend this."),
    ),
    "issuer_mismatch": Failure(
        _("The answer came from somebody else"),
        _("It did not come from the provider that was asked. Nothing was stored."),
        starts_again=True,
    ),
    "temporarily_unavailable": _AWAY,
}
_CONNECT_FAILED = Failure(_OURS, _NOTHING, starts_again=True)
_OTHERS: tuple[tuple[type[EvergrantError], Failure], ...] = (
    (NotFound, Failure(_("There is nothing here"), _("Nothing has this address. It may be mistyped, or over."))),
    (RateLimited, Failure(_("That was too often"), _("Wait a moment, then load this page again."))),
    (RequestTooLarge, Failure(_("That was too much at once"), _("What was sent is larger than anything we take."))),
    (
        InvalidRequest,
        Failure(_("This cannot be used"), _("A part of the address or of the form is wrong."), says_why=True),
    ),
    (UpstreamUnavailable, _AWAY),
    (UpstreamRejected, Failure(_OURS, _("Whoever sent you here has to mend this."), says_why=True)),
    (
        Unavailable,
        Failure(
            _("Our database does not answer right now"),
            _("Nothing is wrong with your account. Try again in some minutes."),
        ),
    ),
)
_BUG = Failure(_OURS, _("It is not your fault. Our log says more about it, by this reference."))


def failed_trip(err: str) -> Failure:
    """Return what to say about a trip that ended without a connection, by its error code."""
    return _CONNECTING.get(err, _CONNECT_FAILED)


def failure_of(error: EvergrantError) -> Failure:
    """Return what to say about an error."""
    if isinstance(error, ConnectFailed):
        return failed_trip(error.error)
    found = next((said for kind, said in _OTHERS if isinstance(error, kind)), _BUG)
    if found is _BUG and error.status < 500:
        return Failure(_("This cannot be used"), _("A part of the address or of the form is wrong."), says_why=True)
    return found
