"""What an app of each kind cannot have, and what it needs before it has tokens."""

from collections.abc import Mapping

from evergrant import placeholders
from evergrant.app_types import AppType
from evergrant.broker.apps.definition import AppDefinition, CompleteDefinition
from evergrant.catalog.kinds import texts_in
from evergrant.catalog.template import Template
from evergrant.db import OutboundApp

Problems = list[tuple[str, str]]

_OF_CONSENTS = ("discoveryUrl", "revocationUrl", "useDcr", "dcrUrl", "refreshTokenIdleSeconds")
_CANNOT_HAVE: Mapping[AppType, tuple[str, ...]] = {
    AppType.OAUTH: (),
    AppType.API_KEY: (
        *("clientId", "clientSecret", "discoveryUrl", "authorizationUrl", "tokenUrl", "revocationUrl", "useDcr"),
        *("dcrUrl", "defaultScopes"),
    ),
    AppType.CLIENT_CREDENTIALS: ("authorizationUrl", *_OF_CONSENTS),
    AppType.JWT_BEARER: ("authorizationUrl", *_OF_CONSENTS),
    AppType.INSTALLATION: _OF_CONSENTS,
    AppType.SIGNED_JWT: ("authorizationUrl", "tokenUrl", *_OF_CONSENTS),
    AppType.LOGIN: ("authorizationUrl", *_OF_CONSENTS),
}
_NEEDS_TEMPLATE = (AppType.JWT_BEARER, AppType.INSTALLATION, AppType.SIGNED_JWT, AppType.LOGIN)


def kind_problems(new: AppDefinition, whole: CompleteDefinition, template: Template | None) -> Problems:
    """Return what is wrong with a definition for the kind of app that it is of, by field.

    `new` is what is sent, `whole` what the app will be.
    """
    kind = AppType(whole.app_type)
    if kind in _NEEDS_TEMPLATE and not whole.template_id:
        return [("templateId", f"an app with appType '{kind}' needs a template, which says how it gets its tokens")]
    if template is not None and template.app_type != kind and (kind.is_obtained or template.app_type.is_obtained):
        return [("appType", f"the template {template.id} is for '{template.app_type}': use that")]
    problems = [
        (name, f"an app with appType '{kind}' has none: leave it out")
        for name, value in _given(new).items()
        if value and name in _CANNOT_HAVE[kind]
    ]
    if kind is AppType.LOGIN and template is not None and new.token_url not in ("", template.login[0].url):
        problems.append(("tokenUrl", "the template says where to log in: leave it out"))
    return problems


def missing_for_tokens(app: OutboundApp, template: Template | None) -> list[str]:
    """Return the fields, by their names on the wire, that an app lacks that obtains its tokens by itself."""
    kind, own = AppType(app.app_type), set(template.fields) if template is not None else set()
    used = {"client_id", "client_secret"} if kind is AppType.CLIENT_CREDENTIALS else _values_used(template)
    values = {"client_id": app.client_id, "client_secret": app.client_secret, "signing_key": app.signing_key}
    wire = {"client_id": "clientId", "client_secret": "clientSecret", "signing_key": "signingKey"}
    missing = [wire[name] for name, value in values.items() if name in used - own and not value]
    if kind in (AppType.CLIENT_CREDENTIALS, AppType.JWT_BEARER, AppType.INSTALLATION) and not app.token_url:
        missing.append("tokenUrl")
    return missing


def _values_used(template: Template | None) -> set[str]:
    """Return the names of all values that what a template sends and signs is made of."""
    if template is None:
        return set()
    assertion = template.assertion
    places: list[object] = [dict(template.token_params), dict(template.token_request_headers)]
    if assertion is not None:
        places += [assertion.key, dict(assertion.header), dict(assertion.claims)]
    for step in template.login:
        places += [step.url, step.basic, dict(step.headers), dict(step.body)]
    return {name for place in places for text in texts_in(place) for name in placeholders.names_in(text)}


def _given(new: AppDefinition) -> dict[str, object]:
    secret = new.client_secret.get_secret_value() if new.client_secret is not None else ""
    return {
        "clientId": new.client_id,
        "clientSecret": secret,
        "discoveryUrl": new.discovery_url,
        "authorizationUrl": new.authorization_url,
        "tokenUrl": new.token_url,
        "revocationUrl": new.revocation_url,
        "useDcr": new.use_dcr,
        "dcrUrl": new.dcr_url,
        "defaultScopes": new.default_scopes,
        "refreshTokenIdleSeconds": new.refresh_token_idle_seconds,
    }
