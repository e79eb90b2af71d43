"""Whose an upload is, and what belongs to a connection: what all uploads share."""

from typing import Annotated

from pydantic import Field

from evergrant.web.api.wire import OptionalId, OwnerId, ShortText

UserOwner = Annotated[OwnerId, Field(description="Whose it is, by your own id.")]
TenantOwner = Annotated[OwnerId, Field(description="The tenant whose it is.")]
InTenant = Annotated[OptionalId, Field(description="The user's within this tenant.")]
Details = Annotated[dict[ShortText, ShortText], Field(max_length=50)]
DETAILS = "Values of the app's variables that belong to this connection: its shop, its company."
