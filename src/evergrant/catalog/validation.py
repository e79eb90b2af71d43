"""Checks a template as a whole: its fields fit together, and no value that is filled in can lead a request astray."""

from collections.abc import Iterator, Mapping

from evergrant import placeholders
from evergrant.app_types import AppType
from evergrant.catalog.api_checks import api_problems
from evergrant.catalog.kinds import problems_of_kind, texts_in, trusted_with_hosts
from evergrant.catalog.template import Template
from evergrant.catalog.url_variables import url_problems
from evergrant.catalog.variable import Variable

GIVEN = frozenset({"app", "user"})
AFTER_CALLBACK = GIVEN | {"callback"}
AFTER_TOKEN = AFTER_CALLBACK | {"token"}
ALWAYS = AFTER_TOKEN | {"context"}
_CLIENT = frozenset({"client_id", "client_secret", "random"})
_REQUEST = frozenset({"state", "nonce", "random", "scope", "redirect_uri", "client_id"})

_NO_PARTS = ("a b", "a,b", "a+b", "a/b", 'a"b', "a\\b")
"""What no value that is part of a scope can have: what separates scopes, paths of it, and what none can hold."""
_CALLBACK = frozenset({"code", "error", "error_description"})

Use = tuple[str, str, frozenset[str], frozenset[str]]
"""A text with placeholders: its field, itself, the sources whose variables it may use, and the other values."""

RESERVED = {
    "authorization_params": frozenset({"client_id", "client_secret", "redirect_uri", "state", "code_challenge"})
    | {"code_challenge_method", "nonce", "request", "request_uri", "response_type", "scope"},
    "token_params": frozenset({"grant_type", "code", "code_verifier", "redirect_uri", "client_id", "client_secret"}),
    "refresh_params": frozenset({"grant_type", "refresh_token", "client_id", "client_secret"}),
}
"""Parameters that the protocol sets itself."""


def problems_of(template: Template) -> list[str]:
    """Return what is wrong between fields that are each right by themselves, with the remedy."""
    return [
        *_wholeness(template),
        *_retirements(template),
        *_following(template),
        *_redirect_uri(template),
        *_scope_patterns(template),
        *_scope_variables(template),
        *_parameters(template),
        *_placeholders(template),
        *_url_variables(template),
        *api_problems(template),
    ]


def _wholeness(it: Template) -> Iterator[str]:
    yield from problems_of_kind(it)
    if not it.app_type.is_consented:
        return
    undescribed = set(it.default_scopes) - it.scopes.keys()
    if undescribed:
        yield f"default_scopes: describe in [scopes] too: {', '.join(sorted(undescribed))}"
    if it.verification == "confirmed" and it.sources < 2:
        yield "verification: 'confirmed' needs sources = 2 or more; else write 'unconfirmed'"
    if it.revocation_endpoint and it.revocation is not None:
        yield "revocation: either revocation_endpoint (RFC 7009) or [revocation], not both"
    if it.revoke_replaced and not (it.revocation_endpoint or it.revocation):
        yield "revoke_replaced: needs revocation_endpoint or [revocation]"
    method = it.token_endpoint_auth_methods_supported[0]
    if method == "private_key_jwt" and not it.token_endpoint_auth_signing_alg:
        yield 'token_endpoint_auth_signing_alg: is required for private_key_jwt, e.g. "RS256"'
    if not it.parameter_names.get("client_id", "client_id") and not it.token_request_headers:
        yield "parameter_names: client_id can be left out only where token_request_headers say who we are"
    if it.context_request is None and any(v.source == "context" for v in it.variables.values()):
        yield "variables: source 'context' needs a [context_request]"
    if strange := sorted(it.callback_parameter_names.keys() - _CALLBACK):
        yield f"callback_parameter_names: only {', '.join(sorted(_CALLBACK))} can be called otherwise, not {strange[0]}"
    if it.revocation is not None and it.revocation.auth == "bearer" and it.revocation.token != "access_token":
        yield 'revocation: auth = "bearer" goes by the token that is revoked, so that must be the access_token'
    if it.token_request_method == "GET" and it.token_request_format != "query":
        yield 'token_request_format: a GET has only a query: write "query"'


def _retirements(it: Template) -> Iterator[str]:
    for number, each in enumerate(it.retires):
        if bool(each.field) != bool(each.value):
            yield f"retires.{number}: field and value belong together; without both, the whole entry retires"
        elif each.field and each.value == getattr(it, each.field):
            yield f"retires.{number}.value: is what {each.field} still says: write there what replaces it"
    if it.replaced_by and it.retirement is None:
        yield "replaced_by: only of an entry that retires: add retires = [{ on = ..., page = ... }]"


def _following(it: Template) -> Iterator[str]:
    """Check that a variable which follows from another one has a value for each that the other can have."""
    for name, variable in it.variables.items():
        if variable.source != "variable":
            continue
        other = it.variables.get(variable.from_)
        if other is None or not other.is_asked_for or not other.enum:
            yield f"variables.{name}.from: name a variable of source 'app' or 'user' that has an enum"
        elif missing := [value for value in other.enum if value not in variable.values]:
            yield f"variables.{name}.values: has none for {', '.join(missing)}"


def _redirect_uri(it: Template) -> Iterator[str]:
    """Refuse a `redirect_uri` whose value could be an address: it decides where codes go."""
    if not it.redirect_uri:
        return
    name = placeholders.NAME.fullmatch(it.redirect_uri)
    if name is None:
        yield "redirect_uri: write one variable of source 'app' and nothing else, like {ruName}"
    elif name[1] in it.variables and not it.variables[name[1]].problem_with("https://evil.example/callback"):
        yield f"variables.{name[1]}.pattern: lets an address into redirect_uri: allow only the provider's name for ours"


def _scope_patterns(it: Template) -> Iterator[str]:
    for scope, others in it.scope_aliases.items():
        if any(("*" in scope) != ("*" in other) for other in others):
            yield f"scope_aliases.{scope}: a '*' stands on both sides or on neither"
    for scope, lesser in it.scope_includes.items():
        if "*" not in scope and any("*" in one for one in lesser):
            yield f"scope_includes.{scope}: a '*' on the right needs one on the left"


def _scope_variables(it: Template) -> Iterator[str]:
    """Refuse a value that would be two scopes, or more than the scope that it is part of."""
    names = {name for scope in (*it.default_scopes, *it.scopes) for name in placeholders.names_in(scope)}
    for name in sorted(names & it.variables.keys()):
        variable = it.variables[name]
        hole = next((value for value in _NO_PARTS if not variable.problem_with(value)), None)
        if hole is not None and not (variable.enum or variable.values):
            yield f"variables.{name}.pattern: lets {hole!r} into a scope: allow only what stands in one"


def _parameters(it: Template) -> Iterator[str]:
    for name, reserved in RESERVED.items():
        for key in sorted(getattr(it, name).keys() & reserved):
            yield f"{name}.{key}: the protocol sets it by itself; to rename it use parameter_names"


def _uses(it: Template) -> Iterator[Use]:
    """Yield every text with placeholders."""
    none: frozenset[str] = frozenset()
    bearer = frozenset({"access_token"}) | _CLIENT
    yield "issuer", it.issuer.replace("{tenantid}", ""), frozenset({"app"}), none
    yield "jwks_uri", it.jwks_uri, frozenset({"app"}), none
    yield "redirect_uri", it.redirect_uri, frozenset({"app"}), none
    for number, each in enumerate(it.retires):
        yield f"retires.{number}.value", each.value, GIVEN, none
    for scope in dict.fromkeys([*it.default_scopes, *it.scopes]):
        yield f"scopes.{scope}", scope, GIVEN, none
    yield "authorization_endpoint", it.authorization_endpoint, GIVEN, none
    yield "token_endpoint", it.token_endpoint, AFTER_CALLBACK, none
    for name in ("refresh_endpoint", "revocation_endpoint", "introspection_endpoint", "userinfo_endpoint"):
        yield name, getattr(it, name), AFTER_TOKEN, none
    yield from _each("authorization_params", it.authorization_params, GIVEN, _REQUEST)
    yield from _each("token_params", it.token_params, AFTER_CALLBACK, _REQUEST | _CLIENT)
    yield from _each("token_request_headers", it.token_request_headers, AFTER_CALLBACK, _CLIENT)
    yield from _each("refresh_params", it.refresh_params, ALWAYS, _CLIENT | {"scope", "redirect_uri"})
    for number, step in enumerate(it.token_exchange):
        yield f"token_exchange.{number}.url", step.url, AFTER_TOKEN, none
        yield from _each(f"token_exchange.{number}.params", step.params, AFTER_TOKEN, bearer)
    if it.context_request is not None:
        yield "context_request.url", it.context_request.url, AFTER_TOKEN, none
        yield from _each("context_request.headers", it.context_request.headers, AFTER_TOKEN, bearer)
    if it.revocation is not None:
        yield "revocation.url", it.revocation.url, ALWAYS, frozenset({"client_id", "token"})
        yield from _each("revocation.params", it.revocation.params, ALWAYS, _CLIENT | {"token"})
        yield from _each("revocation.headers", it.revocation.headers, ALWAYS, _CLIENT | {"token"})
    yield from _uses_of_source(it)
    yield from _uses_of_api(it)


def _uses_of_source(it: Template) -> Iterator[Use]:
    none: frozenset[str] = frozenset()
    own = frozenset(it.fields) | _CLIENT | {"scope"}
    if it.assertion is not None:
        signed = own | {"public_key_sha256"}
        yield "assertion.key", it.assertion.key, AFTER_CALLBACK, own | {"signing_key"}
        yield from _each("assertion.header", it.assertion.header, AFTER_CALLBACK, signed)
        for key, claim in it.assertion.claims.items():
            yield f"assertion.claims.{key}", " ".join(texts_in(claim)), AFTER_CALLBACK, signed
    known = own | ({"assertion"} if it.assertion is not None else frozenset())
    for number, step in enumerate(it.login):
        at = f"login.{number}"
        yield f"{at}.url", step.url, AFTER_CALLBACK, none  # what is not a variable has no pattern
        yield f"{at}.basic", step.basic, AFTER_CALLBACK, known
        yield from _each(f"{at}.headers", step.headers, AFTER_CALLBACK, known)
        yield f"{at}.body", " ".join(texts_in(step.body)), AFTER_CALLBACK, known
        known |= frozenset(step.keep)
    yield "installation_check", it.installation_check, AFTER_CALLBACK, none


def _uses_of_api(it: Template) -> Iterator[Use]:
    secret = frozenset(it.fields) | {"token"}
    yield "api.base_url", it.api.base_url, ALWAYS, frozenset({"token"})
    yield from _each("api.further", it.api.further, ALWAYS, frozenset())
    for name in ("value", "username", "password"):
        yield f"api.credential.{name}", getattr(it.api.credential, name), ALWAYS, secret
    yield from _each("api.headers", it.api.headers, ALWAYS, secret | _CLIENT)
    yield "api.check", it.api.check, ALWAYS, frozenset()
    yield "api.check_body", it.api.check_body, ALWAYS, frozenset()


def _each(field: str, texts: Mapping[str, str], sources: frozenset[str], values: frozenset[str]) -> Iterator[Use]:
    for key, text in texts.items():
        yield f"{field}.{key}", text, sources, values


def _placeholders(it: Template) -> Iterator[str]:
    used = {variable.from_ for variable in it.variables.values() if variable.source == "variable"}
    for field, text, sources, values in _uses(it):
        for name in placeholders.NAME.findall(text):
            used.add(name)
            variable = it.variables.get(name)
            if name in values:
                continue
            if variable is None:
                offered = f", or use {', '.join(sorted(values))}" if values else ""
                yield f"{field}: {{{name}}} is not declared: add [variables.{name}]{offered}"
            elif _origin(it, variable) not in sources:
                yield f"{field}: {{{name}}} (source {variable.source!r}) is not known yet at that point"
            elif variable.is_captured and not (variable.default or variable.is_required or field.startswith("api.")):
                yield f"variables.{name}: {field} needs it: give it a default, or write required = true"
    for name in sorted(it.variables.keys() & (_REQUEST | _CLIENT | {"access_token", "token", "tenantid"})):
        yield f"variables.{name}: the name has a meaning of its own: choose another"
    for name, variable in it.variables.items():
        if name not in used and not variable.is_captured and it.hook is None and it.app_type == AppType.OAUTH:
            yield f"variables.{name}: is asked for and used nowhere: write {{{name}}} where it belongs, or remove it"


def _origin(it: Template, variable: Variable) -> str:
    """Return the source of a variable, or of the one that it follows from."""
    other = it.variables.get(variable.from_) if variable.source == "variable" else variable
    return other.source if other is not None else variable.source


_NO_URLS = (
    "scopes",
    "params",
    "header",
    "username",
    "password",
    "value",
    "redirect_uri",
    "claims",
    "body",
    "basic",
    "key",
)


def _url_variables(it: Template) -> Iterator[str]:
    for field, text, _, _ in _uses(it):
        if text.startswith(("https://", "http://", "{")) and not any(part in field for part in _NO_URLS):
            yield from url_problems(field, text, it.variables, trusted_with_hosts(it))
