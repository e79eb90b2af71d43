"""Which of an owner's connections a call is made with, and the credential that it carries. Nothing is ever guessed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from evergrant.broker.apps.provider_client import secret_slot
from evergrant.broker.calls.bases import AppApi, Base
from evergrant.broker.grants.credentials import CREDENTIALS_TYPE, are_credentials, fields_in, template_in, with_found
from evergrant.broker.grants.grants import ResourceOwner, token_slot
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.runtime.principal import Principal
from evergrant.broker.tokens.candidates import load_candidates
from evergrant.broker.tokens.fetch import FetchRequest, is_good_enough, refreshed
from evergrant.catalog.api import Carried
from evergrant.catalog.template import Template
from evergrant.db.grant_reader import GrantView, OwnerKey
from evergrant.errors import (
    InvalidValue,
    NotConnected,
    PermissionDenied,
    ReauthorizationRequired,
    SeveralConnections,
    TokenNotFound,
    UpstreamRejected,
)
from evergrant.oauth2.scrub import Spellings

FRESH_ENOUGH_SECONDS = 5
"""A token that ends sooner is refreshed before the call."""
_GOOD_ENOUGH = FetchRequest("", ResourceOwner(""), minimum_seconds=FRESH_ENOUGH_SECONDS)
"""What any call asks of a token."""


@dataclass(slots=True, kw_only=True)  # not frozen: that makes each of these cost three times as much
class WantedConnection:
    """Whose connection of an app a call wants, and which."""

    app_id: str
    owner: ResourceOwner
    external_identifier: str | None = None
    """None for the only account."""
    scopes: tuple[str, ...] = ()
    """It has all of these."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A connection's credential, opened, as one call carries it."""

    carried: Carried = field(repr=False)
    base: Base = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    """What must not come back to a caller that may not fetch."""
    app_secrets: tuple[str, ...] = field(default=(), repr=False)
    """What must come back to nobody: the app's own."""
    spellings: Spellings = field(init=False, repr=False)
    """Those of `secrets`, found out once."""
    headers: tuple[tuple[bytes, bytes], ...] = field(init=False, repr=False)
    """Those of `carried`, as they are sent,"""
    header_names: frozenset[bytes] = field(init=False)
    """and their names in lower case."""

    def __post_init__(self) -> None:
        lines = tuple((name.encode(), value.encode()) for name, value in self.carried.headers.items())
        object.__setattr__(self, "spellings", Spellings(self.secrets))
        object.__setattr__(self, "headers", lines)
        object.__setattr__(self, "header_names", frozenset(name.lower() for name, _ in lines))


@dataclass(frozen=True, slots=True)
class Ready:
    """A connection with its credential, as the last call opened it."""

    api: AppApi
    """By which it was opened."""
    view: GrantView
    credential: Credential


def wanted_connection(
    principal: Principal,
    app_id: str,
    *,
    owner: ResourceOwner | None = None,
    external_identifier: str | None = None,
    scopes: Sequence[str] | None = None,
) -> WantedConnection:
    """Return what a caller asks for, within what its session lets it have.

    Raises:
        InvalidValue: it says not whose connection, and its credential stands for nobody.
        PermissionDenied: the session is about another account of this app.
    """
    owner = owner or _own(principal)
    wanted = tuple(scopes or ())
    limits = principal.session.apps.get(app_id) if principal.session is not None else None
    if limits is not None:
        wanted = tuple(dict.fromkeys((*limits.scopes, *wanted)))
        if limits.external_identifier is not None:
            if external_identifier not in (None, limits.external_identifier):
                raise PermissionDenied("This session is for another account of this app.", details={"rule": "session"})
            external_identifier = limits.external_identifier
    return WantedConnection(app_id=app_id, owner=owner, external_identifier=external_identifier, scopes=wanted)


def _own(principal: Principal) -> ResourceOwner:
    if not principal.is_user:
        raise InvalidValue.of(
            ("Evergrant-User", "say whose connection: a user's, a tenant's (Evergrant-Tenant), or a user's within one")
        )
    tenants = sorted(principal.tenant_ids)
    if principal.session is not None or not principal.user_id:
        if len(tenants) > 1:
            raise InvalidValue.of(("Evergrant-Tenant", f"say which: {', '.join(tenants)}"))
        return ResourceOwner(principal.user_id, tenants[0] if tenants else "")
    return ResourceOwner(principal.user_id, "")


async def find_connection(broker: Broker, principal: Principal, wanted: WantedConnection) -> GrantView:
    """Return the connection that answers: the one with these very scopes, else the smallest that covers them.

    Without scopes it is the latest consent of the one account that the owner has connected.

    Raises:
        NotConnected: there is none, or none that works or has the scopes; `details` are those of a fetch.
        SeveralConnections: accounts of the owner's differ, and none was named; `details.accounts` lists them.
    """
    key = _owner_key(principal.project_id, wanted)
    views = [
        view for view in await broker.grant_reader.of_every_account(key) if _is_named(view, wanted.external_identifier)
    ]
    if wanted.scopes:
        views = [view for view in views if set(wanted.scopes) <= set(view.scopes)]
    if not views:
        views = await _in_other_words(broker, key, wanted)
    accounts = {(view.external_identifier, view.token_sub) for view in views}
    if len(accounts) > 1:
        raise SeveralConnections(details={"accounts": [_account(view) for view in views]})
    return min(views, key=lambda view: len(view.scopes) if wanted.scopes else 0)


def _owner_key(project_id: str, wanted: WantedConnection) -> OwnerKey:
    owner = wanted.owner
    return OwnerKey(project_id, wanted.app_id, owner.user_id, owner.tenant_id, wanted.external_identifier or "")


def _is_named(view: GrantView, external_identifier: str | None) -> bool:
    return external_identifier is None or view.external_identifier == external_identifier


def _account(view: GrantView) -> Mapping[str, Any]:
    return {
        "externalIdentifier": view.external_identifier,
        "tokenSub": view.token_sub,
        "scopes": view.scopes,
    }


async def _in_other_words(broker: Broker, key: OwnerKey, wanted: WantedConnection) -> list[GrantView]:
    """Return what covers the scopes as the provider spells them; say why nothing does where that is so."""
    candidates = await load_candidates(broker, key, of_every_account=wanted.external_identifier is None)
    if views := candidates.covering(wanted.scopes):
        return views
    try:
        return [candidates.choose(wanted.scopes)]
    except TokenNotFound as error:
        raise not_connected(error) from error


def not_connected(error: TokenNotFound) -> NotConnected:
    """Return a fetch's error as a call says it: 404 would be the provider's own word too often."""
    return NotConnected(error.message if error.details else None, details=error.details)


async def with_usable_token(
    broker: Broker, principal: Principal, wanted: WantedConnection, view: GrantView, *, now: datetime
) -> GrantView:
    """Return a connection whose token works now: refreshed where it had to be, or another consent of the same account.

    Raises:
        NotConnected: no consent works any more.
        UpstreamUnavailable, UpstreamRejected: there is no valid token, and none could be had.
    """
    if is_good_enough(view, _GOOD_ENOUGH, now=now):
        return view
    request = FetchRequest(wanted.app_id, wanted.owner, minimum_seconds=FRESH_ENOUGH_SECONDS)
    try:
        newer = await refreshed(broker, principal.project_id, view, request, now=now)
    except ReauthorizationRequired as error:
        other = await _same_account(broker, principal, wanted, view)
        if other is None or not is_good_enough(other, request, now=now):
            raise not_connected(error) from error
        return other
    except TokenNotFound as error:
        raise not_connected(error) from error
    if set(newer.scopes) >= set(wanted.scopes):
        return newer
    return await find_connection(broker, principal, wanted)


async def _same_account(
    broker: Broker, principal: Principal, wanted: WantedConnection, dead: GrantView
) -> GrantView | None:
    try:
        other = await find_connection(broker, principal, wanted)
    except (NotConnected, SeveralConnections):
        return None
    same = (other.external_identifier, other.token_sub) == (dead.external_identifier, dead.token_sub)
    return other if same and other.id != dead.id else None


async def open_credential(
    broker: Broker, project_id: str, api: AppApi, view: GrantView, *, base_name: str
) -> Credential:
    """Open a connection's credential, and put it where the API wants it.

    Raises:
        UpstreamRejected: the address of the API needs a value that the connection does not have; or the credential has
            characters that no header can have.
    """
    if view.access_token is None:  # a refresh brings one, so this cannot be
        raise NotConnected
    owner = OwnerKey(project_id, view.app_id, view.user_id, view.tenant_id, view.external_identifier)
    opened = await broker.vault.open(token_slot(owner, view.id, "access_token"), view.access_token)
    values = {} if api.is_fixed else api.values(view.details)
    if view.access_token_type == CREDENTIALS_TYPE and are_credentials(opened):
        template_id, of_app = template_in(opened)
        template = broker.catalogue.get(template_id)
        fields = with_found(template, fields_in(opened))
        secrets = [value for name, value in fields.items() if _is_secret(template, name)]
        values = {**of_app, **values, **view.details, **fields}
    else:
        token = opened.get_secret_value()
        values["token"], secrets = token, [token]
    app_secrets: tuple[str, ...] = ()
    if not api.is_fixed:
        values["client_id"] = api.app.client_id
    if api.app.client_secret is not None and api.sends_client_secret:
        secret = await broker.vault.open(secret_slot(api.app), api.app.client_secret)
        values["client_secret"] = secret.get_secret_value()
        app_secrets = (values["client_secret"],)
    carried = api.api.carried(values)
    if not all(text.isascii() and text.isprintable() for text in carried.headers.values()):
        raise UpstreamRejected(
            "The credential has characters that no header can have.", provider_error="invalid_characters"
        )
    for name in (api.api.credential.name, "Authorization"):
        if value := carried.headers.get(name):
            secrets += [value, value.partition(" ")[2]]
    secrets += carried.query.values()
    base = api.base(base_name, values)
    secrets += app_secrets
    return Credential(carried, base, tuple(dict.fromkeys(secret for secret in secrets if secret)), app_secrets)


def _is_secret(template: Template | None, name: str) -> bool:
    field_ = template.fields.get(name) if template is not None else None
    return field_ is None or field_.secret
