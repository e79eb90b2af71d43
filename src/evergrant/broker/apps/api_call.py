"""The check call of an app's catalogue entry, made of what the app, a connection and its credential have."""

import json
from collections.abc import Mapping
from urllib.parse import quote

from evergrant import placeholders
from evergrant.broker.apps.provider_client import secret_slot
from evergrant.broker.apps.quirks import has_moved
from evergrant.broker.apps.variables import Values, known_values, template_of
from evergrant.broker.runtime.broker import Broker
from evergrant.catalog.api import Api
from evergrant.catalog.template import Template
from evergrant.db import OutboundApp
from evergrant.errors import UpstreamRejected
from evergrant.oauth2.api_check import ApiCall, Expected, check_call

SAFE_IN_PATHS = "!$&'()*+,;=:@"
"""What a segment of a path may hold as it is, besides letters, digits and "-._~" (RFC 3986 section 3.3)."""


def checked_by(broker: Broker, app: OutboundApp) -> Template | None:
    """Return the entry whose check call tells whether an app's credentials work; None where nobody knows one.

    An app with another token endpoint than its entry has tokens of another server, and those go to no API but its own.
    """
    template = template_of(broker, app)
    if template is None or not template.api.check:
        return None
    return None if has_moved(template, app, known_values(template, app.variables, {})) else template


async def check_credential(
    broker: Broker,
    app: OutboundApp,
    *,
    details: Values,
    token: str = "",
    fields: Mapping[str, str] | None = None,
) -> int | None:
    """Make the check call of an app's entry, once, and return the status by which the credential works.

    `details` are a connection's own values. `token` is its access token, or its one key; `fields` are those of its
    credentials (`with_found`). None where nobody knows a check. No database connection is held meanwhile.

    Raises:
        GrantRefused, UpstreamUnavailable, UpstreamRejected: as `check_call`. UpstreamRejected with the provider error
            `missing_variable`: the call cannot be made, because a value for it is not there; it says which.
        CannotOpenSealed: the app's secret is part of the call and cannot be read.
    """
    template = checked_by(broker, app)
    if template is None:
        return None
    client = {"client_id": app.client_id}
    if app.client_secret is not None and _needs(template.api, "client_secret"):
        client["client_secret"] = (await broker.vault.open(secret_slot(app), app.client_secret)).get_secret_value()
    known = known_values(template, app.variables, details)
    secret = {**({"token": token} if token else {}), **(fields or {})}
    call = call_of(template, {**known, **client, **secret}, secrets=(*secret.values(), client.get("client_secret", "")))
    return await check_call(broker.http, call, expected_of(template.api), who=app.name)


def call_of(template: Template, values: Values, *, secrets: tuple[str, ...] = ()) -> ApiCall:
    """Return an entry's check as a call; `values` are all that it may need, each checked by the entry.

    Raises:
        UpstreamRejected: `missing_variable`; its message says which.
    """
    api = template.api
    method, _, where = api.check.partition(" ")
    text = f"{api.base_url}{where}" if where.startswith("/") else where
    credential = api.credential
    own = credential.username + credential.password if credential.place == "basic" else credential.value
    needed = placeholders.names_in(" ".join((text, api.check_body, own, *api.headers.values())))
    missing = [name for name in dict.fromkeys(needed) if not values.get(name)]
    if missing:
        raise UpstreamRejected(
            f"{template.name}: the check call needs a value for {', '.join(missing)}, and there is none.",
            provider_error="missing_variable",
        )
    carried = api.carried(values)
    token = quote(values.get("token", ""), safe=SAFE_IN_PATHS)
    filled = [value for name, value in carried.headers.items() if value != api.headers.get(name)]
    return ApiCall(
        method=method,
        url=placeholders.fill(text, {**values, "token": token}),
        headers=carried.headers,
        query=carried.query,
        body=placeholders.fill(api.check_body, {name: json.dumps(value)[1:-1] for name, value in values.items()}),
        secrets=(*secrets, token, *filled, *(value.partition(" ")[2] for value in filled), *carried.query.values()),
    )


def expected_of(api: Api) -> Expected:
    """Return what an API says of a credential, as its entry has it."""
    return Expected(
        ok=api.check_ok,
        ok_values=api.check_ok_values,
        expired=tuple((each.status, each.pointer, each.values) for each in api.expired),
        wait_after=api.rate.after,
        wait_until=api.rate.at,
        remaining=api.rate.remaining,
    )


def _needs(api: Api, name: str) -> bool:
    return any(name in placeholders.names_in(text) for text in api.headers.values())
