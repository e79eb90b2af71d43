"""The fields of a connection's credentials as one sealed text: in the place of its key, or of its refresh token.

Everything that keeps a refresh token safe so holds for what tokens are obtained from: sealing, leases, the schedule,
key rotation, backups, deletion. The text says what it is, so that nobody is ever given it for a refresh token.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from evergrant.catalog.template import Template

_MARK = "evergrant-credentials:"
CREDENTIALS_TYPE = "credentials"
"""The `accessTokenType` of a connection that holds several fields in the place of one key."""


def as_secret(
    fields: Mapping[str, str], *, template_id: str = "", values: Mapping[str, str] | None = None
) -> SecretStr:
    """Write the fields that somebody entered as what is sealed.

    `template_id` and `values`, the variables of the app, are kept where a fetch makes headers of the fields: it reads
    one row, and not the app's.
    """
    members = {
        "fields": dict(fields),
        **({"template": template_id, "values": dict(values or {})} if template_id else {}),
    }
    return SecretStr(_MARK + json.dumps(members))


def are_credentials(secret: SecretStr) -> bool:
    """Tell whether an opened text is the fields of credentials, and no token."""
    return secret.get_secret_value().startswith(_MARK)


def fields_in(secret: SecretStr) -> dict[str, str]:
    """Return the fields that somebody entered."""
    return dict(_members(secret)["fields"])


def template_in(secret: SecretStr) -> tuple[str, dict[str, str]]:
    """Return the id of the template that says what becomes of the fields, and the app's variables for it."""
    members = _members(secret)
    return str(members.get("template", "")), dict(members.get("values", {}))


def with_found(template: Template | None, fields: Mapping[str, str]) -> dict[str, str]:
    """Return the fields with those that follow from others: the key inside a key file."""
    whole = dict(fields)
    for name, field in template.fields.items() if template is not None else ():
        if field.inside and (value := field.found_in(fields.get(field.inside, ""))):
            whole[name] = value
    return whole


def _members(secret: SecretStr) -> dict[str, Any]:
    members: dict[str, Any] = json.loads(secret.get_secret_value().removeprefix(_MARK))
    return members
