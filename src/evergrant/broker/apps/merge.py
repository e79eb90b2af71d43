"""An app's new definition, made of what the operator says, what the provider publishes and what is stored.

What the operator gives counts. A field that is left out is taken from what the provider publishes, where that has it;
else it stays as it is stored if it may be None in `AppDefinition`, and is emptied if it may not.
"""

from collections.abc import Sequence
from dataclasses import fields, replace

from pydantic import SecretStr

from evergrant.broker.apps.definition import AUTH_METHODS, AppDefinition, CompleteDefinition, scope_problems
from evergrant.oauth2 import client_assertion
from evergrant.oauth2.protected_resource import Discovered
from evergrant.oauth2.registration import ServerMetadata

NOTHING_DISCOVERED = Discovered(ServerMetadata())
NO_SECRET = SecretStr("")


def merge(stored: CompleteDefinition, new: AppDefinition, found: Discovered = NOTHING_DISCOVERED) -> CompleteDefinition:
    """Return the definition that an app has after `new` was sent for it.

    `stored` is the app's definition until now, or the defaults for an app that is being created; its client secret is
    always None, because it is sealed. Of the result's, None means that the stored one stays, and an empty one that the
    app has none.
    """
    server = found.server
    moved = new.discovery_url != stored.discovery_url
    given = {field.name: getattr(new, field.name) for field in fields(new) if getattr(new, field.name) is not None}
    whole = replace(stored, **given)
    merged = replace(
        whole,
        id=stored.id,
        callback_domain=new.callback_domain.lower(),
        prompt=list(new.prompt),
        authorization_url_params=[list(pair) for pair in new.authorization_url_params],
        token_url_params=[list(pair) for pair in new.token_url_params],
        api_forbidden=list(whole.api_forbidden),
        variables=stored.variables if new.variables is None else {n: v for n, v in new.variables.items() if v},
        # Discovered where they are left out or empty.
        authorization_url=new.authorization_url or server.authorization_endpoint,
        token_url=new.token_url or server.token_endpoint,
        revocation_url=new.revocation_url or server.revocation_endpoint,
        # A resource knows which scopes it wants (RFC 9728); an authorization server's list is of all that there are.
        default_scopes=list(new.default_scopes or _usable_scopes(found.scopes)),
        # Discovered where they are left out, else kept; an empty one is empty.
        issuer=_given_or(new.issuer, server.issuer or stored.issuer),
        userinfo_url=_given_or(new.userinfo_url, server.userinfo_endpoint or stored.userinfo_url),
        jwks_url=_given_or(new.jwks_url, server.jwks_uri or stored.jwks_url),
        # These belong to the server: another discovery URL leaves nothing of the old one's.
        resource=_given_or(new.resource, found.resource or ("" if moved else stored.resource)),
        dcr_url=(
            new.dcr_url
            or (server.registration_endpoint if whole.use_dcr else "")
            or ("" if moved or new.dcr_url is not None else stored.dcr_url)
        ),
        client_id_metadata=server.client_id_metadata_document_supported,
        iss_required=server.authorization_response_iss_parameter_supported,
        # No app can do without one of these, so that an empty one is as good as left out.
        refresh_policy=new.refresh_policy or stored.refresh_policy,
        token_endpoint_auth_method=(
            new.token_endpoint_auth_method or stored.token_endpoint_auth_method or _preferred_auth_method(server)
        ),
    )
    merged = _with_client(merged, stored)
    return replace(merged, client_secret=NO_SECRET, signing_key=NO_SECRET) if merged.app_type == "apikey" else merged


def _given_or(given: str | None, otherwise: str) -> str:
    return given if given is not None else otherwise


def _with_client(merged: CompleteDefinition, stored: CompleteDefinition) -> CompleteDefinition:
    """Keep the registration that evergrant made, where it still counts; else take the client that the operator gives.

    It counts when the operator sends its own client id, which a load returned, or none, which is what an SDK sends that
    never saw it. At another server it is worth nothing, and its secret must not get there.
    """
    registered = bool(stored.registered_redirect_uri)
    same_client = registered and merged.client_id in ("", stored.client_id)
    same_server = stored.token_url == merged.token_url and stored.dcr_url == merged.dcr_url
    if merged.use_dcr and same_client and same_server:
        return replace(merged, client_id=stored.client_id)
    useless_secret = registered and (merged.client_id != stored.client_id or not same_server)
    return replace(
        merged,
        client_id="" if merged.use_dcr and same_client else merged.client_id,
        client_secret=NO_SECRET if merged.client_secret is None and useless_secret else merged.client_secret,
        registered_redirect_uri="",
        client_secret_expires_at=None,
    )


def _preferred_auth_method(server: ServerMetadata) -> str:
    """Choose how to authenticate: most providers take the secret in the body, whatever RFC 6749 2.3.1 recommends.

    One that needs a key is never chosen: the operator has to give one.
    """
    supported = server.token_endpoint_auth_methods_supported
    usable = [method for method in AUTH_METHODS if method not in client_assertion.METHODS]
    return next((method for method in usable if method in supported), usable[0])


def _usable_scopes(scopes: Sequence[str]) -> list[str]:
    return [scope for scope in scopes if not scope_problems("", [scope])]
