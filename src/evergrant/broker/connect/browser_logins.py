"""Logins: a browser's way to the users' identity provider and back, which proves whose browser it is.

OpenID Connect, code with PKCE and nonce. Verifier and nonce follow from the browser's cookie, so that whoever has only
the database knows neither.
"""

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import SecretStr
from sqlalchemy import select, update

from evergrant.broker.audit.record import record
from evergrant.broker.connect.verification import (
    FAILED,
    PROOF_LIFETIME,
    PROVED,
    WRONG_USER,
    ProofWanted,
    issuer_of,
    logins_of,
)
from evergrant.broker.projects.projects import load_project
from evergrant.broker.projects.trusted_issuers import LOGIN_CALLBACK_PATH, find_sign_in, open_login_secret
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.places import slot_in
from evergrant.crypto.opaque import derived, digest, equal, new_opaque
from evergrant.db import BrowserLogin, Project, TrustedIssuer
from evergrant.errors import ConnectFailed, EvergrantError
from evergrant.oauth2.authorization import AuthorizationResponse, CodeVerifier, authorization_url, check_issuer
from evergrant.oauth2.provider_text import provider_text
from evergrant.oauth2.registration import ServerMetadata
from evergrant.oauth2.sign_in import identity_of, sign_in_client
from evergrant.oauth2.token_endpoint import exchange_code

log = logging.getLogger(__name__)

LOGIN_LIFETIME = timedelta(minutes=10)
"""How long somebody may take to sign in."""


@dataclass(frozen=True, slots=True)
class LoginEnd:
    """How a login ended, for the browser that made it."""

    outcome: str
    """`proved`, `wrong_user` or `failed`."""
    then: str
    """Our page that it was for."""
    project: Project


async def begin_login(broker: Broker, wanted: ProofWanted, *, browser: str, return_path: str, now: datetime) -> str:
    """Return the address at the issuer where a browser signs in. `return_path` is our page that it is for.

    Who was somebody else before is asked by the issuer to sign in anew.

    Raises:
        ConnectFailed: `not_proved`: the issuer is not trusted any more, or has no login.
        UpstreamUnavailable: its metadata cannot be read.
    """
    issuer = await issuer_of(broker, wanted.project_id, wanted.issuer_id)
    server = await find_sign_in(broker, issuer)
    state, login_id = new_opaque(), secrets.token_hex(16)
    row = BrowserLogin(
        project_id=wanted.project_id,
        id=login_id,
        purpose=wanted.purpose,
        subject_id=wanted.subject_id,
        app_id=wanted.app_id,
        issuer_id=issuer.id,
        user_id=wanted.user_id,
        redirect_uri=wanted.origin + LOGIN_CALLBACK_PATH,
        state_digest=digest(state),
        browser_digest=digest(browser),
        created_at=now,
        expires_at=now + LOGIN_LIFETIME,
    )
    row.return_path = await broker.vault.seal(slot_in("browser_logins", row, "return_path"), SecretStr(return_path))
    url = authorization_url(
        server,
        sign_in_client(server, issuer.login_client_id, None),
        redirect_uri=row.redirect_uri,
        state=state,
        scopes=["openid"] if issuer.user_claim == "sub" else ["openid", "profile", "email"],
        code_verifier=_code_verifier(browser, login_id),
        nonce=_nonce(browser, login_id),
        prompt=["login"] if await _was_somebody_else(broker, wanted, digest(browser)) else (),
    )
    async with broker.database.write() as session:
        session.add(row)
    return url


async def finish_login(
    broker: Broker, login: BrowserLogin, params: Mapping[str, str], *, browser: str, now: datetime
) -> LoginEnd:
    """Take the issuer's answer, once, and find out whose browser it is. The same answer again is told the same.

    Raises:
        ConnectFailed: it comes too late.
    """
    async with broker.database.read() as session:
        project = await load_project(session, login.project_id)
    opened = await broker.vault.open(slot_in("browser_logins", login, "return_path"), login.return_path)
    then = opened.get_secret_value()
    if login.finished_at is None:
        if login.expires_at <= now:
            raise ConnectFailed("expired", "Signing in took too long. Start again.")
        if await _use_up(broker, login, now=now):
            return LoginEnd(await _conclude(broker, login, params, browser=browser, now=now), then, project)
    return LoginEnd(login.outcome or FAILED, then, project)


async def find_login(broker: Broker, state: str, *, browser: str) -> BrowserLogin:
    """Return the login that an issuer's answer belongs to. Nothing is used up.

    Raises:
        ConnectFailed: the state is unknown, or another browser's.
    """
    query = select(BrowserLogin).where(BrowserLogin.state_digest == digest(state))
    async with broker.database.read() as session:
        login = (await session.execute(query)).scalar_one_or_none()
    if login is None:
        raise ConnectFailed("invalid_state", "This answer belongs to no sign-in that was started here.")
    if not browser or not equal(login.browser_digest, digest(browser)):
        # Somebody else's answer: taken for this browser's own, it would be theirs for whom it was made.
        raise ConnectFailed("browser_mismatch", "This sign-in was started in another browser.")
    return login


async def _use_up(broker: Broker, login: BrowserLogin, *, now: datetime) -> bool:
    statement = (
        update(BrowserLogin)
        .where(
            BrowserLogin.project_id == login.project_id,
            BrowserLogin.id == login.id,
            BrowserLogin.finished_at.is_(None),
        )
        .values(finished_at=now)
        .returning(BrowserLogin.id)
        .execution_options(synchronize_session=False)
    )
    async with broker.database.write() as session:
        return (await session.execute(statement)).scalar_one_or_none() is not None


async def _conclude(
    broker: Broker, login: BrowserLogin, params: Mapping[str, str], *, browser: str, now: datetime
) -> str:
    """Find out who has signed in, keep what came of it, and return that."""
    signed_in_as = ""
    try:
        issuer = await issuer_of(broker, login.project_id, login.issuer_id)
        signed_in_as = await _who(broker, login, issuer, params, browser=browser, now=now)
        outcome = PROVED if signed_in_as == login.user_id else WRONG_USER
    except EvergrantError as error:
        log.warning("a browser could not be verified", extra={"issuer": login.issuer_id, "why": error.message})
        outcome = FAILED
    mine = (BrowserLogin.project_id == login.project_id, BrowserLogin.id == login.id)
    async with broker.database.write() as session:
        await session.execute(
            update(BrowserLogin)
            .where(*mine)
            .values(outcome=outcome, expires_at=now + PROOF_LIFETIME)
            .execution_options(synchronize_session=False)
        )
        if outcome == WRONG_USER and broker.limits.denials.allows((login.project_id, login.subject_id)):
            await record(
                session,
                login.project_id,
                "connect.wrong_user",
                app_id=login.app_id,
                user_id=login.user_id,
                data={"purpose": login.purpose, "id": login.subject_id, "signedInAs": provider_text(signed_in_as)},
            )
    return outcome


async def _who(
    broker: Broker,
    login: BrowserLogin,
    issuer: TrustedIssuer,
    params: Mapping[str, str],
    *,
    browser: str,
    now: datetime,
) -> str:
    """Return your own id of whoever has signed in, as the issuer's user claim has it.

    Raises:
        ConnectFailed: the answer or the id_token must not be believed, or names nobody.
        UpstreamError: the issuer does not answer, or refuses our client.
    """
    server = await find_sign_in(broker, issuer)
    response = AuthorizationResponse.parse(params)
    check_issuer(response, server)
    if response.error:
        raise ConnectFailed(response.error, response.error_description or "The issuer did not sign anybody in.")
    tokens = await exchange_code(
        broker.http,
        server,
        sign_in_client(server, issuer.login_client_id, await open_login_secret(broker, issuer)),
        code=response.code,
        redirect_uri=login.redirect_uri,
        code_verifier=_code_verifier(browser, login.id),
    )
    nonce = _nonce(browser, login.id)
    asked: ServerMetadata = server if issuer.user_claim != "sub" else replace(server, userinfo_endpoint="")
    claims: Mapping[str, Any] = await identity_of(
        broker.http, asked, issuer.login_client_id, tokens, nonce=nonce, now=now
    )
    said = claims.get(issuer.user_claim)
    if not isinstance(said, str) or not said:
        raise ConnectFailed("invalid_id_token", f"The id_token has no claim '{issuer.user_claim}' that names a user.")
    if issuer.user_claim == "email" and claims.get("email_verified") in (False, "false"):
        raise ConnectFailed("invalid_id_token", "The issuer has not verified this e-mail address.")
    return said


async def _was_somebody_else(broker: Broker, wanted: ProofWanted, browser: bytes) -> bool:
    async with broker.database.read() as session:
        return (await session.execute(logins_of(wanted, browser, WRONG_USER).limit(1))).one_or_none() is not None


def _code_verifier(browser: str, login_id: str) -> CodeVerifier:
    """Return the verifier that goes with a browser's cookie: whoever has only the database does not know it."""
    return CodeVerifier.from_secret(derived(browser, f"login {login_id} code_verifier"))


def _nonce(browser: str, login_id: str) -> str:
    return derived(browser, f"login {login_id} nonce")
