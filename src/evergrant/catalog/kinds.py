"""What an entry of each kind must have, and what it cannot have."""

from collections.abc import Iterator, Mapping, Sequence

from evergrant import placeholders
from evergrant.app_types import AppType
from evergrant.catalog.template import Template
from evergrant.catalog.url_variables import OPERATOR

_NEEDS: Mapping[AppType, tuple[str, ...]] = {
    AppType.OAUTH: ("authorization_endpoint", "token_endpoint"),
    AppType.API_KEY: (),
    AppType.CLIENT_CREDENTIALS: ("token_endpoint",),
    AppType.JWT_BEARER: ("token_endpoint", "assertion"),
    AppType.INSTALLATION: ("authorization_endpoint", "token_endpoint", "assertion", "login", "installation_check"),
    AppType.SIGNED_JWT: ("assertion",),
    AppType.LOGIN: ("login",),
}
_MAY: Mapping[AppType, tuple[str, ...]] = {AppType.LOGIN: ("assertion",)}
_PARTS = ("authorization_endpoint", "token_endpoint", "assertion", "login", "installation_check")
_OF_CONSENTS = (
    "refresh_endpoint",
    "revocation_endpoint",
    "revocation",
    "userinfo_endpoint",
    "jwks_uri",
    "context_request",
    "token_exchange",
    "dead_refresh_token",
)
"""What only an entry can have at which somebody consents."""
_RESERVED = frozenset({"token", "assertion", "scope", "random", "public_key_sha256", "access_token", "signing_key"})


def problems_of_kind(it: Template) -> Iterator[str]:
    """Say what an entry lacks for its kind, and what it has that its kind cannot have."""
    needs = _NEEDS[it.app_type]
    for name in _PARTS:
        value = getattr(it, name)
        if name in needs and not value:
            yield f'{name}: is required with app_type = "{it.app_type}"'
        elif value and name not in needs and name not in _MAY.get(it.app_type, ()):
            yield f'{name}: an entry with app_type = "{it.app_type}" has none: leave it out'
    if not it.app_type.is_consented:
        for name in _OF_CONSENTS:
            if getattr(it, name):
                yield f'{name}: is for entries at which somebody consents, and app_type is "{it.app_type}"'
    if it.fields and it.app_type == AppType.OAUTH:
        yield 'fields: are for entries whose credentials are uploaded, and app_type is "oauth"'
    yield from _fields(it)
    if it.app_type == AppType.INSTALLATION:
        yield from _installation(it)


def _installation(it: Template) -> Iterator[str]:
    """Hold an entry to asking about the very installation for which it then gets tokens."""
    brought = {name for name, variable in it.variables.items() if variable.source == "callback"}
    if not brought:
        yield "variables: an installation is known by what the browser brings back: add one with source 'callback'"
    asked = set(placeholders.names_in(it.installation_check))
    used = {name for text in texts_in(_where_used(it)) for name in placeholders.names_in(text)}
    used |= {name for step in it.login for name in placeholders.names_in(step.url)}
    for name in sorted(brought & used - asked) or ([] if brought & asked else sorted(brought)[:1]):
        yield f"installation_check: does not ask about {{{name}}}, which anybody can write into an address: name it"


def _fields(it: Template) -> Iterator[str]:
    for name, field in it.fields.items():
        if name in _RESERVED or name in it.variables:
            yield f"fields.{name}: the name is taken: choose another"
        if field.inside and (field.inside not in it.fields or not it.fields[field.inside].is_asked_for):
            yield f"fields.{name}.in: name a field that is entered, not {field.inside!r}"
    used = {name for text in texts_in(_where_used(it)) for name in placeholders.names_in(text)}
    used |= {field.inside for field in it.fields.values()}
    if it.app_type == AppType.CLIENT_CREDENTIALS:
        used |= {"client_id", "client_secret"}  # a connection's own client
    for name in it.fields:
        if name not in used:
            yield f"fields.{name}: is asked for and used nowhere: write {{{name}}} where it belongs, or remove it"


def trusted_with_hosts(it: Template) -> frozenset[str]:
    """Return the sources whose variables may name hosts of any domain.

    They are the operator's, who decides who sees the app's secrets. Where nothing that is sent is the app's, whoever
    uploads a connection brings everything with it, and may say too whose server it is for.
    """
    own = {"client_id", "client_secret", "signing_key"} | {n for n, v in it.variables.items() if v.source == "app"}
    sent = {name for text in texts_in(_where_used(it)) for name in placeholders.names_in(text)}
    alone = it.app_type in (AppType.API_KEY, AppType.LOGIN, AppType.SIGNED_JWT) and not sent & own
    return OPERATOR | ({"user"} if alone else set())


def _where_used(it: Template) -> list[object]:
    api = it.api
    found: list[object] = [api.base_url, api.credential.value, api.credential.username, api.credential.password]
    found += [dict(api.headers), dict(it.token_params), dict(it.token_request_headers)]
    if it.assertion is not None:
        found += [it.assertion.key, dict(it.assertion.header), dict(it.assertion.claims)]
    for step in it.login:
        found += [step.basic, dict(step.headers), dict(step.body)]
    return found


def texts_in(value: object) -> Iterator[str]:
    """Yield every text in a value of tables and lists, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from texts_in(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from texts_in(item)
