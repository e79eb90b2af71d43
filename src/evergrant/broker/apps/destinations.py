"""Destinations: where an app's client secret, its users' codes and their tokens go, and who decides about them.

A stored secret never follows a definition that somebody changed without knowing it. So who moves a destination brings
the client secret again, and where there are connections may see refresh tokens anyway, for ever and from anywhere.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import SecretStr
from pydantic.alias_generators import to_camel

from evergrant import placeholders
from evergrant.app_types import AppType
from evergrant.broker.apps.definition import CompleteDefinition
from evergrant.broker.apps.variables import known_values
from evergrant.broker.runtime.admission import allows_all
from evergrant.broker.runtime.authority import Authority, require_no_more
from evergrant.broker.runtime.principal import Permission, Principal
from evergrant.catalog.template import Template
from evergrant.db import AccessPolicy, OutboundApp
from evergrant.errors import InvalidValue, MissingArgument, PermissionDenied
from evergrant.oauth2.client_assertion import is_private_key

Catalogue = Mapping[str, Template]
Destinations = Mapping[str, str]
"""By the field that leads there, as the wire calls it."""

_ADDRESSES = (
    "discovery_url",  # fills the others where they are empty
    "authorization_url",
    "token_url",
    "revocation_url",
    "userinfo_url",
    "dcr_url",
    "issuer",  # these two decide whose word about users is believed
    "jwks_url",
)
_BY_BROWSER = ("authorizationUrl", "callbackDomain")
"""Where evergrant sends nothing by itself, so that no secret gets there."""
_SENT_AS_IT_IS = ("client_secret_post", "client_secret_basic")
_FILLED = ("variables", "variables of the API")
"""Addresses of the template, which its variables fill."""
_OF_THE_API = ("apiBaseUrl", "apiFurther")
"""Where tokens go, and the client secret only if a header carries it."""
_METHOD = "tokenEndpointAuthMethod"
_TO_SEE_ALL = frozenset({Permission.TOKENS_FETCH, Permission.TOKENS_FETCH_REFRESH_TOKEN})
"""What a key needs to be given a refresh token."""


@dataclass(frozen=True, slots=True)
class Move:
    """A destination that an update changes; `before` is empty where there was none."""

    field: str
    before: str
    after: str


def destinations_of(catalogue: Catalogue, app: OutboundApp | CompleteDefinition) -> Destinations:
    """Return where an app's credentials go, with the values of its variables; without the empty ones.

    Addresses that are equal by RFC 3986 section 6.2.2 and 6.2.3, in their scheme and host, are written alike.
    """
    template = catalogue.get(app.template_id)
    values = known_values(template, app.variables, {})
    found = {to_camel(name): _plain(placeholders.fill(getattr(app, name), values)) for name in _ADDRESSES}
    found["callbackDomain"] = app.callback_domain.lower()
    # Without a template, what it did to a secret before that was sent ends as well.
    found["templateId"] = app.template_id or "none"
    found["variables"] = " ".join(_plain(placeholders.fill(url, values)) for url in _own_addresses(template))
    return {name: place for name, place in found.items() if place}


def digest_of(catalogue: Catalogue, app: OutboundApp) -> str:
    """Return an app's destinations as 32 characters, to tell later whether one has moved.

    A kind that obtains its tokens is one: it would take a refresh token for its credentials. A key goes nowhere.
    """
    kind = {"appType": app.app_type} if AppType(app.app_type).is_obtained else {}
    places = {**destinations_of(catalogue, app), **kind}
    return hashlib.sha256(json.dumps(places, sort_keys=True).encode()).hexdigest()[:32]


def moves(catalogue: Catalogue, before: CompleteDefinition, after: CompleteDefinition) -> list[Move]:
    """Return what an update makes credentials go to that they did not go to before.

    What is emptied gets nothing any more, and is no move; what is filled again is one.
    """
    old, new = ({**destinations_of(catalogue, app), **_api_of(catalogue, app)} for app in (before, after))
    if any(app.api_base_url or app.api_further for app in (before, after)):
        old |= _own_api_of(catalogue, before)
        new |= _own_api_of(catalogue, after)
    if before.template_id != after.template_id:
        old, new = ({name: place for name, place in each.items() if name not in _FILLED} for each in (old, new))
    return [Move(name, old.get(name, ""), place) for name, place in new.items() if old.get(name) != place]


def check_secret_follows(
    catalogue: Catalogue, moved: list[Move], before: CompleteDefinition, after: CompleteDefinition
) -> None:
    """Check that a stored secret, which stays, is sent nowhere new and by no way that shows it for the first time.

    Raises:
        MissingArgument: it would be; the update has to bring it.
    """
    in_calls = _calls_show_secret(after, catalogue)
    nowhere = _BY_BROWSER if in_calls else (*_BY_BROWSER, *_OF_THE_API)
    named = [move.field for move in moved if move.field not in nowhere]
    if in_calls and not _calls_show_secret(before, catalogue):
        named.append("apiHeaders")
    if _shows_secret(after, catalogue) and not _shows_secret(before, catalogue):
        named.append(_METHOD)
    if _writes_secret(after) and not _writes_secret(before):
        named.append("tokenUrlParams")
    if not named:
        return
    remedy = (
        "evergrant has registered this client by itself, so have it register anew: see 'Registering by itself'"
        if after.registered_redirect_uri
        else 'send it with this update, or "" if the app has none any more'
    )
    raise MissingArgument.of(
        ("clientSecret", f"the stored secret does not follow a change of {', '.join(named)}: {remedy}")
    )


def check_key_follows(moved: list[Move]) -> None:
    """Check that what a stored signing key signs is sent nowhere new: it would be good at the old place too.

    Raises:
        MissingArgument: it would be; the update has to bring the key.
    """
    named = [move.field for move in moved if move.field not in (*_BY_BROWSER, *_OF_THE_API)]
    if named:
        remedy = 'send it with this update, or "" if the app has none any more'
        raise MissingArgument.of(
            ("signingKey", f"the stored key does not follow a change of {', '.join(named)}: {remedy}")
        )


def check_secret_is_no_key(catalogue: Catalogue, secret: SecretStr | None, app: CompleteDefinition) -> None:
    """Check that an app does not send a private key as it is.

    Raises:
        InvalidValue: it would.
    """
    if secret is not None and _shows_secret(app, catalogue) and is_private_key(secret.get_secret_value()):
        raise InvalidValue.of(
            ("clientSecret", f"is a private key, which must never be sent, as {app.token_endpoint_auth_method} would"),
            (_METHOD, "use private_key_jwt with a private key"),
        )


def check_may_move(
    principal: Principal, app_id: str, moved: Iterable[Move], *, fetching: Sequence[AccessPolicy]
) -> None:
    """Check that who moves an app with connections may have their tokens anyway, for ever and from anywhere.

    `fetching` are the app's policies about that.

    Raises:
        PermissionDenied: not by this key.
    """
    names = ", ".join(move.field for move in moved)
    to_tokens = Authority(permissions=_TO_SEE_ALL, app_ids=frozenset({app_id}))
    try:
        require_no_more(principal, to_tokens, what=f"a change of {names}")
    except PermissionDenied as error:
        raise PermissionDenied(
            f"{error.message} The app has connections, whose tokens would go there. Use a key with "
            f"{' and '.join(sorted(_TO_SEE_ALL))} that neither expires nor is limited to networks, or delete "
            "the connections first."
        ) from None
    if Permission.POLICIES not in principal.permissions and not allows_all(fetching, principal):
        raise PermissionDenied(
            f"The app has connections, whose tokens would go where a change of {names} sends them, and its access "
            "policies do not allow this key to fetch them all. This takes the permission 'policies'."
        )


def moved_for_audit(moved: Iterable[Move]) -> dict[str, dict[str, str]]:
    """Return what the audit log says: of addresses only the origins."""
    return {move.field: {"from": _origins(move.before), "to": _origins(move.after)} for move in moved}


def _shows_secret(app: CompleteDefinition, catalogue: Catalogue) -> bool:
    """Tell whether the method sends the secret as it is, and does not sign with it."""
    template = catalogue.get(app.template_id)
    signed_by_hook = template is not None and template.hook is not None
    return app.token_endpoint_auth_method in _SENT_AS_IT_IS and not signed_by_hook


def _calls_show_secret(app: CompleteDefinition, catalogue: Catalogue) -> bool:
    """Tell whether calls to the provider's API carry the client secret."""
    texts = list(app.api_headers.values())
    if (template := catalogue.get(app.template_id)) is not None:
        own = {name.lower() for name in app.api_headers}
        credential = template.api.credential
        texts += [text for name, text in template.api.headers.items() if name.lower() not in own]
        texts += [credential.value, credential.username, credential.password]
    return any("client_secret" in placeholders.names_in(text) for text in texts)


def _writes_secret(app: CompleteDefinition) -> bool:
    """Tell whether parameters of the app's own repeat the secret, whatever the method does with it."""
    return any("{client_secret}" in value for _, value in app.token_url_params)


def _api_of(catalogue: Catalogue, app: CompleteDefinition) -> Destinations:
    """Return where check calls go with connections' credentials, as far as the app's own variables decide it.

    It is no part of the digest: nothing that is under way goes there.
    """
    template = catalogue.get(app.template_id)
    if template is None:
        return {}
    values = known_values(template, app.variables, {})
    api = template.api
    bases = [api.base_url, *api.further.values(), *([api.check.partition(" ")[2]] if "://" in api.check else [])]
    return {"variables of the API": " ".join(_plain(placeholders.fill(url, values)) for url in bases if url)}


def _own_api_of(catalogue: Catalogue, app: CompleteDefinition) -> Destinations:
    """Return where calls go with connections' tokens, of an app that says so itself in part or once did."""
    template = catalogue.get(app.template_id)
    values = known_values(template, app.variables, {})
    base = app.api_base_url or (template.api.base_url if template is not None else "")
    further = {**(template.api.further if template is not None else {}), **app.api_further}
    found = {
        "apiBaseUrl": _plain(placeholders.fill(base, values)) if base else "",
        "apiFurther": " ".join(_plain(placeholders.fill(url, values)) for _, url in sorted(further.items())),
    }
    return {name: place for name, place in found.items() if place}


def _own_addresses(template: Template | None) -> Iterable[str]:
    """Return what only the template knows, and an app's definition has no field for."""
    if template is None:
        return []
    others = (template.context_request, template.revocation, *template.token_exchange)
    urls = [template.refresh_endpoint, template.introspection_endpoint, *(other.url for other in others if other)]
    urls += [template.installation_check, *(step.url for step in template.login)]
    return [url for url in urls if url]


def _plain(url: str) -> str:
    """Write scheme and host in small letters, and leave out the port that is the scheme's own."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return url
    if not parts.netloc or "@" in parts.netloc:
        return url
    host = parts.netloc.lower()
    if port == {"https": 443, "http": 80}.get(parts.scheme):
        host = host.rpartition(":")[0]
    return parts._replace(netloc=host, path=parts.path or "/").geturl()


def _origins(places: str) -> str:
    return " ".join(dict.fromkeys(_origin_of(place) for place in places.split()))


def _origin_of(place: str) -> str:
    parts = urlsplit(place)
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else place
