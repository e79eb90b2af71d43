"""Outbound apps as they are answered, and how a stored app becomes an answer."""

from typing import Any, Literal

from pydantic import Field

from evergrant import clock
from evergrant.broker.apps.provider_client import callback_url
from evergrant.broker.apps.variables import template_of
from evergrant.broker.apps.warnings import warnings_about
from evergrant.broker.runtime.broker import Broker
from evergrant.db import OutboundApp
from evergrant.web.api.app_examples import STORED
from evergrant.web.api.app_wire import ScopeDescription, UrlParam
from evergrant.web.api.wire import WireModel, epoch, example


class AppHealth(WireModel):
    """Whether the provider accepts this registration."""

    status: Literal["ok", "unhealthy"]
    reason: str = Field(description="The provider's refusal; empty while it is ok.")
    since: str = Field(description="Epoch seconds as text; empty while it is ok.")


class AppWarning(WireModel):
    """Something about an app that its operator should change while it still works."""

    code: str = Field(
        description="`address_ends`: the provider ends an address that the app has. `provider_ends`: it ends all that "
        "the app's template is about. `shared_callback`: the app shares its callback address."
    )
    text: str = Field(description="What it is, and the remedy.")


class AppBody(WireModel):
    """An app as it is stored. The client secret is never returned."""

    id: str
    name: str
    description: str
    logo: str
    client_id: str
    has_client_secret: bool
    has_signing_key: bool
    registration_expires_at: str = Field(
        description="Epoch seconds as text, when a registration that evergrant made ends; empty for never."
    )
    discovery_url: str
    authorization_url: str
    authorization_url_params: list[UrlParam]
    token_url: str
    token_url_params: list[UrlParam]
    revocation_url: str
    default_scopes: list[str]
    default_redirect_url: str
    callback_domain: str
    callback_url: str = Field(description="The redirect URI to register with the provider.")
    pkce: bool
    access_type: str
    prompt: list[str]
    app_type: str
    tenant_id: str
    template_id: str
    variables: dict[str, str]
    use_dcr: bool
    dcr_url: str
    resource: str
    issuer: str
    userinfo_url: str
    jwks_url: str
    token_endpoint_auth_method: str
    scopes: list[ScopeDescription]
    scope_translations: dict[str, dict[str, str]]
    skip_consent_page: bool
    require_confirmation: bool
    revoke_replaced: bool
    refresh_policy: str
    refresh_token_idle_seconds: int
    own_callback: bool
    api_base_url: str
    api_further: dict[str, str]
    api_headers: dict[str, str]
    api_forbidden: list[str]
    health: AppHealth
    warnings: list[AppWarning]
    created_time: str
    updated_time: str


class AppAnswer(WireModel):
    """One app."""

    model_config = example({"app": STORED})

    app: AppBody


class AppsAnswer(WireModel):
    """Apps by name."""

    model_config = example({"apps": [STORED]})

    apps: list[AppBody]


def app_body(broker: Broker, app: OutboundApp) -> AppBody:
    """Write an app for the wire: each field is the column of the same name, but for those that are spelt out here."""
    differing: dict[str, Any] = {
        "has_client_secret": app.client_secret is not None,
        "has_signing_key": app.signing_key is not None,
        "registration_expires_at": epoch(app.client_secret_expires_at),
        "authorization_url_params": [UrlParam(key=key, value=value) for key, value in app.authorization_url_params],
        "token_url_params": [UrlParam(key=key, value=value) for key, value in app.token_url_params],
        "callback_url": callback_url(broker, app),
        "scopes": [ScopeDescription(value=k, description=v) for k, v in app.scope_descriptions.items()],
        "health": AppHealth(
            status="unhealthy" if app.unhealthy_since else "ok",
            reason=app.unhealthy_reason,
            since=epoch(app.unhealthy_since),
        ),
        "warnings": [
            AppWarning(code=one.code, text=one.text)
            for one in warnings_about(
                app, template_of(broker, app), public_url=broker.settings.public_url, today=clock.now().date()
            )
        ],
        "created_time": epoch(app.created_at),
        "updated_time": epoch(app.updated_at),
    }
    same = {name: getattr(app, name) for name in AppBody.model_fields if name not in differing}
    return AppBody(**differing, **same)
