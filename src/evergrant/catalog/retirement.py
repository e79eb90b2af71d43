"""What ends at a provider on a day that it has announced."""

from datetime import date
from typing import Literal

from evergrant.catalog.field_types import OptionalUrl, PageUrl, StrictModel

Endpoint = Literal["authorization_endpoint", "token_endpoint", "revocation_endpoint", "userinfo_endpoint", "jwks_uri"]


class Retirement(StrictModel):
    """An address that an entry had, and that ends; without an address: everything that the entry is about.

    Apps keep the addresses that they were made with, so a corrected entry does not help those that exist: they are
    told. What an address is replaced by, the entry says in the field itself.
    """

    on: date
    """From this day on it does not answer."""
    page: PageUrl
    """Where the provider says so."""
    field: Endpoint | None = None
    """Which field of the entry had the address."""
    value: OptionalUrl = ""
    """The address; it may hold `{variables}`, and is compared with theirs filled in."""
