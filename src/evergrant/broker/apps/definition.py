"""The definition of an app: as an operator sends it, as it is stored, and the rules for it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from urllib.parse import urlsplit

from pydantic import SecretStr

from evergrant import placeholders
from evergrant.app_types import AppType
from evergrant.broker.apps.api_rules import api_problems
from evergrant.broker.apps.variables import app_variable_problems, declared_variables
from evergrant.broker.grants.schedule import POLICIES, PROACTIVE
from evergrant.broker.projects.redirects import check_redirect_url
from evergrant.broker.runtime.broker import Broker
from evergrant.catalog.kinds import trusted_with_hosts
from evergrant.catalog.template import Template
from evergrant.catalog.url_variables import OPERATOR, url_problems
from evergrant.db import OutboundApp, Project
from evergrant.errors import InvalidValue, MissingArgument
from evergrant.oauth2 import client_assertion, signed_assertion
from evergrant.oauth2.transport import check_url
from evergrant.pasted import is_one_word

AUTH_METHODS = ("client_secret_post", "client_secret_basic", "none", *client_assertion.METHODS)
PROMPTS = ("none", "login", "consent", "select_account")
ACCESS_TYPES = ("offline", "online")
NOT_AS_IDS = ("new",)
"""What no new app may be called by: a page of the console has its address."""
MIN_IDLE_SECONDS, MAX_IDLE_SECONDS = 3_600, 10 * 365 * 86_400
RESERVED_PARAMS = frozenset(
    {"client_id", "client_secret", "redirect_uri", "response_type", "state", "code", "code_challenge"}
    | {"code_challenge_method", "code_verifier", "grant_type", "refresh_token", "nonce", "scope"}
)
"""Parameters that the protocol sets itself; an app's extra ones may not stand in for them."""

_LOGO = r"(https://[^\s]+|data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=]+)\Z"

Params = Sequence[Sequence[str]]
"""Pairs of a parameter's name and its value."""


@dataclass(frozen=True, kw_only=True)
class AppDefinition:
    """What an operator says about an app. Fields that may be None are kept on an update that leaves them out."""

    name: str
    id: str = ""
    description: str = ""
    logo: str = ""
    client_id: str = ""
    client_secret: SecretStr | None = None
    signing_key: SecretStr | None = None
    """Signs the assertions of the kinds that have them; it is kept like the secret where it is left out."""
    discovery_url: str = ""
    authorization_url: str = ""
    authorization_url_params: Params = ()
    token_url: str = ""
    token_url_params: Params = ()
    revocation_url: str = ""
    default_scopes: Sequence[str] = ()
    default_redirect_url: str = ""
    callback_domain: str = ""
    pkce: bool = True
    access_type: str = ""
    prompt: Sequence[str] = ()
    # not known to every SDK, so kept too
    use_dcr: bool | None = None
    dcr_url: str | None = None
    app_type: str | None = None
    tenant_id: str | None = None
    template_id: str | None = None
    # ours
    variables: dict[str, str] | None = None
    issuer: str | None = None
    userinfo_url: str | None = None
    jwks_url: str | None = None
    token_endpoint_auth_method: str | None = None
    resource: str | None = None
    scope_descriptions: dict[str, str] | None = None
    scope_translations: dict[str, dict[str, str]] | None = None
    skip_consent_page: bool | None = None
    require_confirmation: bool | None = None
    revoke_replaced: bool | None = None
    refresh_policy: str | None = None
    refresh_token_idle_seconds: int | None = None
    own_callback: bool | None = None
    api_base_url: str | None = None
    """Instead of the template's."""
    api_further: dict[str, str] | None = None
    """Beside the template's, or instead of those of the same names."""
    api_headers: dict[str, str] | None = None
    """The same."""
    api_forbidden: Sequence[str] | None = None
    """Beside the template's."""


@dataclass(frozen=True, kw_only=True)
class CompleteDefinition(AppDefinition):
    """An app's definition with nothing left open, and what discovery and registration add to it.

    Each field is the column of the same name in the app's row, but for the secrets, which stand there sealed. The
    defaults are what an app starts with.
    """

    use_dcr: bool = False
    dcr_url: str = ""
    app_type: str = AppType.OAUTH
    tenant_id: str = ""
    template_id: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    issuer: str = ""
    userinfo_url: str = ""
    jwks_url: str = ""
    token_endpoint_auth_method: str = ""
    resource: str = ""
    scope_descriptions: dict[str, str] = field(default_factory=dict)
    scope_translations: dict[str, dict[str, str]] = field(default_factory=dict)
    skip_consent_page: bool = False
    require_confirmation: bool = False
    revoke_replaced: bool = False
    refresh_policy: str = PROACTIVE
    refresh_token_idle_seconds: int = 0
    own_callback: bool = True
    api_base_url: str = ""
    api_further: dict[str, str] = field(default_factory=dict)
    api_headers: dict[str, str] = field(default_factory=dict)
    api_forbidden: Sequence[str] = field(default_factory=list)
    # what evergrant learns by itself
    client_id_metadata: bool = False
    iss_required: bool = False
    registered_redirect_uri: str = ""
    client_secret_expires_at: datetime | None = None


SECRET_FIELDS = ("client_secret", "signing_key")
PLAIN_FIELDS = tuple(one.name for one in fields(CompleteDefinition) if one.name not in SECRET_FIELDS)
"""The fields that an app's row has as they are."""


def definition_as_stored(app: OutboundApp) -> AppDefinition:
    """Return what an update has to say about an app to change nothing."""
    return AppDefinition(
        **{one.name: getattr(app, one.name) for one in fields(AppDefinition) if one.name not in SECRET_FIELDS}
    )


def missing_for_connect(app: OutboundApp) -> list[str]:
    """Return the fields, by their names on the wire, that must be filled before anybody can connect."""
    known = app.client_id or app.use_dcr  # then evergrant gets the client id by itself
    needed = {"clientId": known, "authorizationUrl": app.authorization_url, "tokenUrl": app.token_url}
    if app.app_type == AppType.INSTALLATION:  # what it signs with for its tokens
        needed["signingKey"] = app.signing_key is not None
    return [name for name, value in needed.items() if not value]


def check_definition(broker: Broker, project: Project, new: AppDefinition, template: Template | None) -> None:
    """Check every field. `template` is the catalogue entry that the app will have, `new.variables` all that it will.

    Raises:
        MissingArgument: there is no name.
        InvalidValue: naming every wrong field.
    """
    if not new.name.strip():
        raise MissingArgument.of(("name", "give the app a name"))
    problems: list[tuple[str, str]] = []
    if len(new.name) > 200:
        problems.append(("name", "use at most 200 characters"))
    if new.id and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", new.id):
        problems.append(("id", "use letters, digits, '.', '_' and '-', at most 64, beginning with a letter or digit"))
    for name, url in (
        ("discoveryUrl", new.discovery_url),
        ("authorizationUrl", new.authorization_url),
        ("tokenUrl", new.token_url),
        ("revocationUrl", new.revocation_url),
        ("dcrUrl", new.dcr_url),
        ("userinfoUrl", new.userinfo_url),
        ("jwksUrl", new.jwks_url),
        ("apiBaseUrl", new.api_base_url),
        *(("apiFurther", url) for url in (new.api_further or {}).values()),
    ):
        if url:
            problems += _url_problems(broker, template, new.variables or {}, name, url)
    problems += api_problems(
        template,
        base_url=new.api_base_url or "",
        further=new.api_further or {},
        headers=new.api_headers or {},
        forbidden=new.api_forbidden or (),
    )
    problems += app_variable_problems(template, new.variables or {})
    if template is not None and template.pkce == "required" and not new.pkce:
        problems.append(("pkce", "this provider requires it: leave it on"))
    if len(new.logo) > 100_000:
        problems.append(("logo", "use at most 100,000 characters; link to larger pictures"))
    elif new.logo and not re.match(_LOGO, new.logo):
        problems.append(("logo", "use an https URL or a data:image URL (png, jpeg, gif, webp)"))
    if new.callback_domain and not re.fullmatch(r"(?i)[a-z0-9-]+(\.[a-z0-9-]+)+(:\d{1,5})?", new.callback_domain):
        problems.append(("callbackDomain", "use a host name like connect.example.com, without https://"))
    problems += _param_problems("authorizationUrlParams", new.authorization_url_params)
    problems += _param_problems("tokenUrlParams", new.token_url_params)
    if new.access_type and new.access_type not in ACCESS_TYPES:
        problems.append(("accessType", f"use one of {', '.join(ACCESS_TYPES)}"))
    problems += prompt_problems("prompt", new.prompt)
    if new.token_endpoint_auth_method and new.token_endpoint_auth_method not in AUTH_METHODS:
        problems.append(("tokenEndpointAuthMethod", f"use one of {', '.join(AUTH_METHODS)}"))
    problems += [
        (name, "must not contain blanks, line breaks and invisible characters")
        for name, text in (("clientId", new.client_id), ("issuer", new.issuer))
        if text and not is_one_word(text)
    ]
    problems += _private_key_problems(new) or _secret_problems(new)
    problems += _signing_key_problems(new, template)
    if new.refresh_policy and new.refresh_policy not in POLICIES:
        problems.append(("refreshPolicy", f"use one of {', '.join(POLICIES)}"))
    if new.refresh_token_idle_seconds and not MIN_IDLE_SECONDS <= new.refresh_token_idle_seconds <= MAX_IDLE_SECONDS:
        problems.append(("refreshTokenIdleSeconds", "use 0 for never, or a time between an hour and ten years"))
    problems += scope_problems("defaultScopes", new.default_scopes, template)
    if any(not re.fullmatch(r"[a-z]{2,3}", language) for language in new.scope_translations or {}):
        problems.append(("scopeTranslations", "name each language by its code alone: de, fr"))
    problems += resource_problems("resource", [new.resource] if new.resource else [])
    if new.tenant_id and len(new.tenant_id) > 255:
        problems.append(("tenantId", "use at most 255 characters"))
    if new.default_redirect_url:
        try:
            check_redirect_url(broker, project, new.default_redirect_url, field="defaultRedirectUrl")
        except InvalidValue as error:
            problems += [(e["field"], e["problem"]) for e in error.details["fields"]]
    if problems:
        raise InvalidValue.of(*problems)


def _url_problems(
    broker: Broker, template: Template | None, values: dict[str, str], name: str, url: str
) -> list[tuple[str, str]]:
    """Return what is wrong with a URL: its form, and variables by which a user could choose where it leads."""
    known = declared_variables(template)
    unknown = [variable for variable in placeholders.names_in(url) if variable not in known]
    if unknown:
        return [(name, f"{{{unknown[0]}}} is not a variable of the app's template")]
    # Of the kinds in which people may name hosts, only a login has an address; an app of another kind sends a secret.
    trusted = trusted_with_hosts(template) if template is not None and template.login else OPERATOR
    problems = [(name, problem) for problem in url_problems(name, url, known, trusted)]
    # A value that its variable does not allow has an error of its own.
    good = {key: value for key, value in values.items() if key in known and not known[key].problem_with(value)}
    samples = {key: variable.default or variable.example or "x" for key, variable in known.items()}
    if name == "authorizationUrl":  # only a browser goes there, and some providers have a page with a route (#/...)
        url = url.partition("#")[0]
    try:
        check_url(placeholders.fill(url, good, samples), what="it", egress_allow=broker.http.egress_allow)
    except ValueError as error:
        problems.append((name, str(error)))
    return problems


def _private_key_problems(new: AppDefinition) -> list[tuple[str, str]]:
    secret = new.client_secret.get_secret_value() if new.client_secret is not None else ""
    if not secret or new.token_endpoint_auth_method != "private_key_jwt":
        return []
    try:
        client_assertion.private_key(secret)
    except ValueError:
        return [("clientSecret", "with private_key_jwt it is the private key, in PEM or as a JWK")]
    return []


def _signing_key_problems(new: AppDefinition, template: Template | None) -> list[tuple[str, str]]:
    key = new.signing_key.get_secret_value() if new.signing_key is not None else ""
    assertion = template.assertion if template is not None else None
    if not key:
        return []
    if assertion is None or "{signing_key}" not in assertion.key:
        return [("signingKey", "the app's template signs nothing with it: leave it out")]
    if assertion.alg.startswith("HS"):
        return []
    try:
        client_assertion.private_key(key, most=signed_assertion.MOST_KEY_LETTERS)
    except ValueError:
        return [
            (
                "signingKey",
                f"is the private key that signs by {assertion.alg}, in PEM or as a JWK, of at most 4,096 bits",
            )
        ]
    return []


def _secret_problems(new: AppDefinition) -> list[tuple[str, str]]:
    secret = new.client_secret.get_secret_value() if new.client_secret is not None else ""
    # Blanks inside are legal (RFC 6749 appendix A.2), and a private key has lines.
    if secret.isprintable() or secret.startswith(("-----BEGIN ", "{")):
        return []
    return [("clientSecret", "must not contain line breaks and invisible characters: paste it again")]


def _param_problems(name: str, params: Params) -> list[tuple[str, str]]:
    return [
        (
            name,
            f"'{key}' is set by the protocol itself and cannot be given here" if key else "every key needs a name",
        )
        for key, _ in params
        if not key or key in RESERVED_PARAMS
    ]


def prompt_problems(name: str, prompt: Sequence[str]) -> list[tuple[str, str]]:
    """Return what is wrong with `prompt` values (OpenID Connect Core 3.1.2.1)."""
    if any(value not in PROMPTS for value in prompt):
        return [(name, f"use values from {', '.join(PROMPTS)}")]
    if "none" in prompt and len(prompt) > 1:
        return [(name, "'none' cannot be combined with other values")]
    return []


def scope_problems(name: str, scopes: Sequence[str], template: Template | None = None) -> list[tuple[str, str]]:
    """Return what is wrong with scope tokens (RFC 6749 section 3.3: visible ASCII but quote and backslash).

    Their `{variables}` are those of the app's `template` that somebody gives; without one, braces are as good as
    letters.
    """
    if any(not re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]+", scope) for scope in scopes):
        return [(name, "each scope is one word of visible ASCII, without spaces, quotes and backslashes")]
    if template is None:
        return []
    known = declared_variables(template, "app", "user", "variable")
    unknown = dict.fromkeys(one for scope in scopes for one in placeholders.names_in(scope) if one not in known)
    offered = f": use {', '.join(known)}" if known else ""
    return [
        (name, f"{{{one}}} is not a variable of the app's template that somebody gives{offered}") for one in unknown
    ]


def resource_problems(name: str, resources: Sequence[str]) -> list[tuple[str, str]]:
    """Return what is wrong with resource indicators (RFC 8707 section 2: absolute URIs without a fragment)."""
    bad = any(not _is_absolute_uri(resource) or "#" in resource for resource in resources)
    return [(name, "use absolute URIs without a fragment and blanks")] if bad else []


def _is_absolute_uri(text: str) -> bool:
    try:
        return bool(urlsplit(text).scheme) and is_one_word(text)
    except ValueError:
        return False
