"""What a provider's answer changes on the row that it was asked for."""

from datetime import datetime

from evergrant.broker.apps.quirks import scope_words
from evergrant.broker.apps.variables import allowed_captures, template_of
from evergrant.broker.grants.granted_scopes import granted_anew
from evergrant.broker.grants.grants import access_columns, owner_of, seal_answer
from evergrant.broker.grants.schedule import next_refresh
from evergrant.broker.refresh.attempt import RefreshAttempt
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.vault import Sealer
from evergrant.oauth2 import follow_up
from evergrant.oauth2.odd_parts import part_or
from evergrant.oauth2.token_response import TokenResponse

ESSENTIAL = frozenset(
    {
        "access_token",
        "refresh_token",
        "expires_at",
        "fresh_until",
        "next_refresh_at",
        "last_refresh_time",
        "token_version",
    }
)
"""The columns that must be stored at any cost. What is in the others is worked out from whatever a provider says."""


def columns_of_answer(
    broker: Broker,
    attempt: RefreshAttempt,
    answer: TokenResponse,
    sealer: Sealer,
    *,
    fetched: bool,
    now: datetime,
) -> dict[str, object]:
    """Return the columns that the answer to a refresh changes. Nothing beside the two tokens can make this fail.

    `fetched` tells that somebody is waiting for the token, so that the grant counts as used.
    """
    grant, quirks = attempt.leased.grant, attempt.provider.quirks
    answer = follow_up.with_usual_lifetime(answer, quirks)
    tokens = seal_answer(sealer, owner_of(grant), grant.id, answer, quirks=quirks, refreshed=grant, now=now)
    values: dict[str, object] = {
        **access_columns(tokens, now=now, before=grant),
        "next_refresh_at": tokens.lifetime.due,
        "last_refresh_time": now,
        "last_refresh_error": "",
        "refresh_failures": 0,
        "refresh_not_before": None,
        "interrupted_at": None,
        "restored_at": None,
        "token_version": grant.token_version + 1,
    }
    if tokens.refresh_token is not None:  # none returned keeps the old one (RFC 6749 section 6)
        values["refresh_token"] = tokens.refresh_token
    if tokens.id_token is None:
        del values["id_token"]

    def due() -> dict[str, object]:
        at = next_refresh(
            attempt.app,
            tokens.lifetime.due,
            used_at=now if fetched else attempt.leased.used_at,
            refreshed_at=now,
            ends_at=tokens.refresh_token_expires_at,
            idle_after=broker.settings.idle_after,
            now=now,
        )
        return {"next_refresh_at": at}

    def details() -> dict[str, object]:
        known = {**grant.details, **allowed_captures(template_of(broker, attempt.app), answer.captured)}
        return {} if known == grant.details else {"details": known}

    def scopes() -> dict[str, object]:
        if tokens.scopes is None:
            return {}
        words, with_id_token = scope_words(broker, attempt.app), tokens.id_token is not None
        return granted_anew(words, grant, tokens.scopes, with_id_token=with_id_token).answered_columns()

    for part in (due, details, scopes):
        found: dict[str, object] = part_or({}, part.__name__, part)
        values |= found
    return values
