"""What the provider has given in a trip and no row has yet; revoked if the trip fails, because nobody will use it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from evergrant import clock
from evergrant.broker.connect.authorization_requests import Authorization
from evergrant.broker.grants.grants import load_grant, owner_of, token_slot
from evergrant.broker.revocations.revocation import RevocationReason, prepare_revocations, write_and_try
from evergrant.broker.runtime.broker import Broker
from evergrant.db import Grant
from evergrant.oauth2.id_token import Subject
from evergrant.oauth2.token_response import TokenResponse

log = logging.getLogger(__name__)


@dataclass
class FreshConsent:
    """A consent as far as it is known, step by step."""

    grant_id: str
    """What its grant will be called."""
    details: Mapping[str, str]
    answer: TokenResponse | None = None
    """The tokens; None until the code is redeemed."""
    subject: Subject = field(default_factory=Subject)

    @property
    def tokens(self) -> TokenResponse:
        """Return the tokens, which are there."""
        assert self.answer is not None, "the code is redeemed first"  # noqa: S101 - a mistake of ours
        return self.answer

    def take(self, answer: TokenResponse) -> None:
        """Note the tokens."""
        self.answer = answer

    def learn(self, details: Mapping[str, str]) -> None:
        """Note what else the provider has told."""
        self.details = {**self.details, **details}


async def revoke_failed(broker: Broker, authorization: Authorization, fresh: FreshConsent) -> None:
    """Revoke what a failed trip has got, unless that might end another connection of the same person.

    It never fails: what cannot be done is in the log. While the database is away nobody knows what else there is, and
    nothing is revoked.
    """
    if fresh.answer is None:
        return
    app = authorization.app
    try:
        await _revoke(broker, authorization, fresh, fresh.answer)
    except Exception:
        log.exception("a consent whose trip failed is not revoked", extra={"app": app.id, "project": app.project_id})


async def _revoke(broker: Broker, authorization: Authorization, fresh: FreshConsent, answer: TokenResponse) -> None:
    request, app, now = authorization.request, authorization.app, clock.now()
    if await load_grant(broker, request.project_id, fresh.grant_id) is not None:
        return  # it was stored, but the database went away before it could say so
    grant = Grant(
        project_id=request.project_id,
        id=fresh.grant_id,
        app_id=app.id,
        user_id=request.user_id,
        tenant_id=request.tenant_id,
        external_identifier=request.external_identifier,
        granted_by=request.granted_by,
        token_sub=fresh.subject.sub,
        details=dict(fresh.details),
    )
    for column, token in (("access_token", answer.access_token), ("refresh_token", answer.refresh_token)):
        if token is not None:
            setattr(grant, column, await broker.vault.seal(token_slot(owner_of(grant), grant.id, column), token))
    rows = await prepare_revocations(broker, app, [grant], reason=RevocationReason.FAILED, now=now)
    await write_and_try(broker, rows, now=now)
