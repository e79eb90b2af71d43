"""From the catalogue to the protocol floor: an app's provider with its habits, as a filled value."""

from evergrant import placeholders
from evergrant.app_types import AppType
from evergrant.broker.apps.variables import Values, known_values, template_of
from evergrant.broker.runtime.broker import Broker
from evergrant.catalog.template import Template
from evergrant.db import OutboundApp
from evergrant.oauth2.quirks import NO_QUIRKS, Capture, Quirks
from evergrant.oauth2.scopes import ScopeWords


def quirks_of(broker: Broker, app: OutboundApp, details: Values | None = None) -> Quirks:
    """Return the habits of an app's provider, with the values of the app and of a connection filled in.

    `details` are the connection's own values; none where there is no connection yet. An app without a catalogue entry,
    or whose entry is gone, has a provider that does what the RFCs say.
    """
    template = template_of(broker, app)
    if template is None:
        return NO_QUIRKS
    values = known_values(template, app.variables, details or {})
    return quirks_from(template, values, moved=has_moved(template, app, values))


def has_moved(template: Template, app: OutboundApp, values: Values) -> bool:
    """Tell whether an app's credentials go to another place than its entry says.

    One that was made before the entry had a variable there has the same address, spelled out.
    """
    there = placeholders.fill(template.token_url, values)
    return app.token_url != template.token_url and placeholders.fill(app.token_url, values) != there


def quirks_from(template: Template, values: Values, *, moved: bool = False) -> Quirks:
    """Return what a catalogue entry says, with these values; `moved` if the app has another token endpoint."""
    return Quirks(
        values=values,
        unset=tuple(name for name in template.variables if name not in values),
        signing_alg=template.token_endpoint_auth_signing_alg,
        hook=template.hook or "",
        scope_separator=template.scope_separator,
        authorization_names={**template.parameter_names, **template.authorization_parameter_names},
        token_names={**template.parameter_names, **template.token_parameter_names},
        callback_names=template.callback_parameter_names,
        redirect_uri=template.redirect_uri,
        token_params=template.token_params,
        refresh_params=template.refresh_params,
        token_headers=template.token_request_headers,
        token_method=template.token_request_method,
        token_format=template.token_request_format,
        # An operator who sends us to another token endpoint means it: the secret goes there and nowhere else.
        refresh_endpoint="" if moved else template.refresh_endpoint,
        introspection_endpoint="" if moved else template.introspection_endpoint,
        response=template.token_response,
        default_expires_in=template.default_expires_in if isinstance(template.default_expires_in, int) else None,
        never_ends=template.default_expires_in == "never",
        refresh_token_max_seconds=template.refresh_token_max_seconds,
        refresh_margin=template.refresh_margin,
        dead_refresh_token=template.dead_refresh_token,
        captures=tuple(
            Capture(name, variable.source, variable.from_)
            for name, variable in template.variables.items()
            if variable.source in ("callback", "token", "context")
        ),
        context_request=template.context_request,
        token_exchange=template.token_exchange,
        revocation=template.revocation,
        assertion=template.assertion,
        login=template.login,
        installation_check=template.installation_check,
    )


def scope_words(broker: Broker, app: OutboundApp, details: Values | None = None) -> ScopeWords:
    """Return how an app's provider spells scopes; `details` are the own values of a connection.

    Of a provider about which the catalogue says nothing, what it says of others counts where their spellings are
    addresses: nobody else means something else by them.
    """
    template = template_of(broker, app)
    values = known_values(template, app.variables, details or {})
    if template is not None and template.scope_aliases:
        return ScopeWords(template.scope_aliases, template.scope_includes, any_prefix=False, values=values)
    includes = template.scope_includes if template is not None else {}
    return ScopeWords(broker.catalogue.scope_addresses, includes, values=values)


def source_url(app: OutboundApp, quirks: Quirks) -> str:
    """Return where an app's tokens come from: its token endpoint, or where a login begins that gives them."""
    return quirks.fill(quirks.login[0].url if quirks.login else app.token_url)


def can_revoke(broker: Broker, app: OutboundApp) -> bool:
    """Tell whether evergrant knows how to revoke at an app's provider."""
    return app.app_type == AppType.OAUTH and bool(app.revocation_url or quirks_of(broker, app).revocation)


def revokes_singly(broker: Broker, app: OutboundApp) -> bool:
    """Tell whether revoking one consent's token leaves the same person's other consents alone, as far as is known.

    The operator says so, or the catalogue for the provider's own endpoint.
    """
    template = template_of(broker, app)
    at_its_own = template is not None and app.revocation_url == template.revocation_endpoint
    return app.revoke_replaced or (template is not None and template.revoke_replaced and at_its_own)
