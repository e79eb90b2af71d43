"""What a fetch answers where a connection holds several fields in the place of one token. It reads nothing more."""

from collections.abc import Mapping

from pydantic import SecretStr

from evergrant import placeholders
from evergrant.app_types import AppType
from evergrant.broker.grants.credentials import CREDENTIALS_TYPE, fields_in, template_in, with_found
from evergrant.catalog.api import Api, Carried
from evergrant.catalog.template import Template
from evergrant.db.grant_reader import GrantView


def with_fields(
    catalogue: Mapping[str, Template], view: GrantView, opened: SecretStr
) -> tuple[GrantView, SecretStr, None, Carried]:
    """Return the parts of a `Token`: details with the fields, the one value that stands for all, and ready headers.

    Where the connection's catalogue entry is gone, nobody knows what becomes of the fields: then these are all.
    """
    template_id, values = template_in(opened)
    template = catalogue.get(template_id)
    fields = with_found(template, fields_in(opened))
    details = {**view.details, **fields}
    if template is None:
        return view._replace(details=details), SecretStr(""), None, Carried({}, {})
    carried = template.api.carried({**values, **details})
    kind, value = _one_value(template.api, carried, fields)
    return view._replace(details=details, access_token_type=kind), SecretStr(value), None, carried


def _one_value(api: Api, carried: Carried, fields: Mapping[str, str]) -> tuple[str, str]:
    """Return the credential without its prefix, and its `accessTokenType`, by which older SDKs know what to do with it.

    The type is the scheme (RFC 9110 section 11.1) where it goes into `Authorization`, `apikey` where it goes elsewhere,
    and `credentials` where calls need more than this one value.
    """
    how = api.credential
    if how.place == "query":
        scheme, value = "", carried.query.get(how.name, "")
    else:
        name, prefix = ("Authorization", "Basic ") if how.place == "basic" else (how.name, how.prefix)
        scheme = prefix.strip() if name == "Authorization" else ""
        value = carried.headers.get(name, "").removeprefix(prefix)
    beside = {name for text in api.headers.values() for name in placeholders.names_in(text)}
    if not value or beside & fields.keys():
        return CREDENTIALS_TYPE, value
    return scheme or AppType.API_KEY, value
