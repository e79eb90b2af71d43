"""Whose browser it is that opens a link which an agent has begun.

A link says nothing about who opens it. An application that makes one for its own user vouches for that; an agent
cannot, and one that was talked into something, or is somebody else's, would send it to the wrong person. So whoever
opens an agent's link signs in where the project's users do, and must turn out to be the one that the agent acts for
(`login`). Where no trusted issuer has a login, the application says afterwards who came back (`confirmation`).

A login proves one thing: that this very browser is that user's, for this one trip or approval, for half an hour.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from evergrant import clock
from evergrant.broker.apps.provider_client import public_origin
from evergrant.broker.connect.authorization_requests import Authorization
from evergrant.broker.projects.trusted_issuers import list_issuers
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Principal
from evergrant.db import BrowserLogin, TrustedIssuer
from evergrant.errors import ConnectFailed, InvalidValue

LOGIN, CONFIRMATION = "login", "confirmation"
PROVED, WRONG_USER, FAILED = "proved", "wrong_user", "failed"
PROOF_LIFETIME = timedelta(minutes=30)
"""How long a browser counts as the user's for what it has signed in for: longer than any trip takes."""


@dataclass(frozen=True, slots=True)
class Verification:
    """How a browser proves whose it is."""

    way: str = ""
    """`login` or `confirmation`; empty where the link's maker vouches."""
    issuer_id: str = ""
    """Where it signs in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofWanted:
    """What a browser has to prove before it goes on: that it is this user's."""

    project_id: str
    purpose: str
    """`connect` or `approval`."""
    subject_id: str
    """The trip or the approval that this is for, and no other."""
    app_id: str
    issuer_id: str
    user_id: str
    origin: str
    """Scheme, host and port under which our page has been opened: its cookie comes back there only."""


async def login_issuer(broker: Broker, principal: Principal) -> TrustedIssuer | None:
    """Return the trusted issuer where the user of a credential signs in; None where it has no login.

    It is the one that the user's token is from. Of a credential that is from none, it is the only one that there is.
    """
    able = [one for one in await list_issuers(broker, principal.project_id) if one.login_client_id]
    if principal.claims is not None:
        able = [one for one in able if one.issuer == principal.claims.get("iss")]
    return able[0] if len(able) == 1 else None


async def how_to_verify(broker: Broker, principal: Principal, *, user_id: str, returns: bool) -> Verification:
    """Return how the browser that opens an agent's link proves that it is `user_id`'s.

    `returns` tells whether the trip ends at the application, which can then confirm who came back.

    Raises:
        InvalidValue: there is no way; the message has the remedy.
    """
    if not user_id:
        raise InvalidValue.of(("owner", "an agent connects for a user only; your backend connects a tenant's accounts"))
    issuer = await login_issuer(broker, principal)
    if issuer is not None:
        return Verification(LOGIN, issuer.id)
    if not returns:
        raise InvalidValue.of(
            (
                "defaultRedirectUrl",
                (
                    "nobody could tell whose browser opens an agent's link: give the trusted issuer of the project's "
                    "users a login, or the app a defaultRedirectUrl, where your backend confirms who came back "
                    "(app/connect/confirm)"
                ),
            )
        )
    return Verification(CONFIRMATION)


def proof_of_trip(broker: Broker, authorization: Authorization) -> ProofWanted | None:
    """Return what the browser of a connect trip has to prove; None where it need not."""
    request = authorization.request
    if request.verify != LOGIN:
        return None
    return ProofWanted(
        project_id=request.project_id,
        purpose="connect",
        subject_id=request.id,
        app_id=request.app_id,
        issuer_id=request.login_issuer_id,
        user_id=request.granted_by or request.user_id,
        origin=public_origin(broker.settings.public_url, authorization.app),
    )


async def has_proved(broker: Broker, wanted: ProofWanted, *, browser: bytes | None) -> bool:
    """Tell whether a browser, by the digest of its cookie, has proved what is wanted, and its issuer is still trusted.

    Raises:
        Unavailable: the database is away.
    """
    if browser is None or not wanted.user_id:
        return False
    query = (
        logins_of(wanted, browser, PROVED)
        .join(
            TrustedIssuer,
            (TrustedIssuer.project_id == BrowserLogin.project_id) & (TrustedIssuer.id == BrowserLogin.issuer_id),
        )
        .where(
            BrowserLogin.issuer_id == wanted.issuer_id,
            BrowserLogin.user_id == wanted.user_id,
            BrowserLogin.expires_at > clock.now(),
        )
    )
    async with broker.database.read() as session:
        return (await session.execute(query.limit(1))).one_or_none() is not None


async def require_proof(broker: Broker, authorization: Authorization, *, browser: bytes | None) -> None:
    """Check that a trip's browser, by the digest of its cookie, has proved whose it is, where that is wanted.

    Raises:
        ConnectFailed: `not_proved`.
    """
    wanted = proof_of_trip(broker, authorization)
    if wanted is not None and not await has_proved(broker, wanted, browser=browser):
        raise ConnectFailed("not_proved", "This browser has not shown whose it is. Open the link again, and sign in.")


async def issuer_host(broker: Broker, wanted: ProofWanted) -> str:
    """Return the name by which people know where they sign in: its host.

    Raises:
        ConnectFailed: `not_proved`: the project does not trust it any more, or it has no login.
    """
    issuer = await issuer_of(broker, wanted.project_id, wanted.issuer_id)
    return issuer.issuer.partition("://")[2].partition("/")[0] or issuer.issuer


async def issuer_of(broker: Broker, project_id: str, issuer_id: str) -> TrustedIssuer:
    """Return the trusted issuer where browsers sign in.

    Raises:
        ConnectFailed: `not_proved`: the project does not trust it any more, or it has no login.
    """
    async with broker.database.read() as session:
        issuer = await session.get(TrustedIssuer, (project_id, issuer_id))
    if issuer is None or not issuer.login_client_id:
        raise ConnectFailed("not_proved", "Nobody can sign in for this link any more. Start again.")
    return issuer


def logins_of(wanted: ProofWanted, browser: bytes, outcome: str) -> Any:
    """Ask for the logins of one browser for one thing that ended so."""
    return select(BrowserLogin.id).where(
        BrowserLogin.project_id == wanted.project_id,
        BrowserLogin.purpose == wanted.purpose,
        BrowserLogin.subject_id == wanted.subject_id,
        BrowserLogin.browser_digest == browser,
        BrowserLogin.outcome == outcome,
    )
