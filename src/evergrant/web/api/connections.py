"""Connections without their secrets: listing, deleting, revoking, refreshing on request."""

from typing import Annotated, Literal

from fastapi import Query
from pydantic import Field

from evergrant import clock
from evergrant.broker.connections import deletion, listing
from evergrant.broker.connections.browsing import browse
from evergrant.broker.connections.listing import GrantFilter
from evergrant.broker.runtime.list_places import Place
from evergrant.errors import InvalidValue, MissingArgument
from evergrant.web.api.connection_wire import (
    EXAMPLE_ID,
    EXAMPLE_METADATA,
    AnApp,
    ATenant,
    AUser,
    OneToken,
    TokenId,
    TokenMetadata,
    TokenMetadataAnswer,
    metadata,
    wanted_of,
)
from evergrant.web.api.wire import Nothing, OptionalId, Text, WireModel, errors, example
from evergrant.web.cors import BrowserRoute
from evergrant.web.deps import BrokerDep, ConnectionsReaderOrUser, TokensWriter
from evergrant.web.routing import ApiRouter

MOST_ID_LETTERS = 32

router = ApiRouter(prefix="/v1/mgmt/outbound", tags=["connections"])


class TokensAnswer(WireModel):
    """A page of connections."""

    model_config = example({"tokens": [EXAMPLE_METADATA], "nextCursor": ""})

    tokens: list[TokenMetadata]
    next_cursor: str = Field(description="`cursor` of the next page; empty on the last.")


class AppIdsAnswer(WireModel):
    """Apps for which there is a connection that works."""

    model_config = example({"appIds": ["google-contacts"]})

    app_ids: list[str]


class WhichToken(WireModel):
    """One connection."""

    model_config = example({"id": EXAMPLE_ID})

    id: TokenId


class WhichTokens(WireModel):
    """Some connections."""

    model_config = example({"ids": [EXAMPLE_ID]})

    ids: list[TokenId] = Field(min_length=1, max_length=50)


class RevokedAnswer(WireModel):
    """What has come of revoking each connection at its provider; here, they are deleted in any case."""

    model_config = example({"outcomes": {EXAMPLE_ID: "revoked"}})

    outcomes: dict[str, Literal["revoked", "pending", "unsupported"]] = Field(
        description="By the connection's id, as for one connection."
    )


class RevokeAnswer(WireModel):
    """What has come of revoking at the provider; here, the connection is deleted in any case."""

    model_config = example({"outcome": "revoked"})

    outcome: Literal["revoked", "pending", "unsupported"] = Field(
        description="`pending`: the provider is away, it is tried again for days. `unsupported`: it has no revocation, "
        "or refuses it; the audit log says why."
    )


async def list_apps_with_user_token(
    broker: BrokerDep, principal: ConnectionsReaderOrUser, user_id: AUser = "", tenant_id: ATenant = ""
) -> AppIdsAnswer:
    """Return the apps that a user has connected, within a tenant if one is given.

    Counted is what works: active, and not expired without a way to refresh. With a user's JWT, `userId` may be left
    out, and can be nobody else.
    """
    user_id = user_id or principal.user_id
    if not user_id:
        raise MissingArgument.of(("userId", "is required"))
    principal.require_owner(user_id, tenant_id)
    found = await listing.apps_with_token(broker, principal, user_id=user_id, tenant_id=tenant_id, now=clock.now())
    return AppIdsAnswer(app_ids=found)


async def list_tokens(
    broker: BrokerDep,
    principal: ConnectionsReaderOrUser,
    app_id: AnApp = "",
    user_id: AUser = "",
    tenant_id: ATenant = "",
    status: Annotated[
        Literal["", "active", "pending", "reauthorization_required"],
        Query(description="In this state.", examples=["active"]),
    ] = "",
    order: Annotated[
        Literal["", "newest", "oldest"],
        Query(description="By the time of the consent, instead of by id.", examples=["newest"]),
    ] = "",
    search: Annotated[
        OptionalId,
        Query(
            description="The beginning of a user's or tenant's id, or a whole `tokenSub` or id. With `order` only.",
            examples=["ali"],
        ),
    ] = "",
    state: Annotated[
        Literal["", "healthy", "retrying", "app_refused", "reconnect", "unconfirmed"],
        Query(
            description="Whose fault it is that one does not work, as the console tells. With `order` only.",
            examples=["reconnect"],
        ),
    ] = "",
    cursor: Annotated[
        Text, Query(max_length=64, description="`nextCursor` of the page before.", examples=[EXAMPLE_ID])
    ] = "",
    limit: Annotated[int, Query(ge=1, le=200, description="How many at most.", examples=[50])] = 50,
) -> TokensAnswer:
    """Return connections without their secrets, in the order of their ids; every filter is optional.

    With `order`, the list goes by the time of the consent, and can be searched. A page may then be shorter than `limit`
    and not be the last: `nextCursor` says so.

    With a user's JWT, these are the user's own, in the tenants that it names and in none; with a machine's, its
    tenants'.
    """
    if order:
        wanted = wanted_of(app_id, user_id, tenant_id, state, search, order)
        if status:
            raise InvalidValue.of(("status", "is for the list by id: use state with order"))
        place = Place.parse(cursor, field="cursor")
        found = await browse(broker, principal, wanted, after=place, limit=limit)
        tokens = [metadata(grant) for grant in found.grants]
        return TokensAnswer(tokens=tokens, next_cursor=str(found.following or ""))
    if len(cursor) > MOST_ID_LETTERS:
        raise InvalidValue.of(("cursor", f"takes at most {MOST_ID_LETTERS} characters without order"))
    if search or state:
        raise InvalidValue.of(("search" if search else "state", "takes an order: newest or oldest"))
    which = GrantFilter(app_id=app_id, user_id=user_id, tenant_id=tenant_id, status=status)
    page, following = await listing.list_grants(broker, principal, which, after=cursor, limit=limit)
    return TokensAnswer(tokens=[metadata(grant) for grant in page], next_cursor=following)


for path, handler, summary in (
    ("/apps-with-user-token", list_apps_with_user_token, "List the apps that a user has connected"),
    ("/tokens", list_tokens, "List connections"),
):
    router.add_api_route(
        path, handler, methods=["GET"], summary=summary, responses=errors(400), route_class_override=BrowserRoute
    )


@router.delete("/user/tokens", summary="Delete users' connections", responses=errors(400, 404))
async def delete_user_tokens(
    broker: BrokerDep, principal: TokensWriter, app_id: AnApp = "", user_id: AUser = ""
) -> Nothing:
    """Delete all connections of an app's users, of a user, or of a user for an app; revoke them at the provider.

    One of the two is required. Tenants' own connections stay.
    """
    await deletion.delete_user_tokens(broker, principal, app_id=app_id, user_id=user_id, now=clock.now())
    return Nothing()


@router.delete("/token", summary="Delete a connection", responses=errors(400, 404))
async def delete_token(
    broker: BrokerDep,
    principal: TokensWriter,
    token_id: OneToken,
) -> Nothing:
    """Delete one connection, and revoke it at the provider where that can be done."""
    await deletion.delete_token(broker, principal, token_id, now=clock.now())
    return Nothing()


@router.post(
    "/token/revoke", summary="Delete a connection and say whether it is revoked", responses=errors(400, 404, 413)
)
async def revoke_token(body: WhichToken, broker: BrokerDep, principal: TokensWriter) -> RevokeAnswer:
    """Do the same as deleting, and answer what came of revoking it at the provider (RFC 7009)."""
    outcome = await deletion.delete_token(broker, principal, body.id, now=clock.now())
    return RevokeAnswer(outcome=outcome.value)


@router.post("/tokens/revoke", summary="Delete several connections", responses=errors(400, 413))
async def revoke_tokens(body: WhichTokens, broker: BrokerDep, principal: TokensWriter) -> RevokedAnswer:
    """Do the same with at most 50 at once. What is not there any more is not in the answer."""
    outcomes = await deletion.delete_tokens(broker, principal, body.ids, now=clock.now())
    return RevokedAnswer(outcomes={one: outcome.value for one, outcome in outcomes.items()})


@router.post("/token/refresh", summary="Refresh a connection now", responses=errors(400, 404, 413, 502))
async def refresh_token(body: WhichToken, broker: BrokerDep, principal: TokensWriter) -> TokenMetadataAnswer:
    """Refresh whether it is needed or not. The answer holds no token: fetch it."""
    return TokenMetadataAnswer(token=metadata(await listing.refresh_now(broker, principal, body.id)))
