"""Starting a connect trip, and confirming who came back from it."""

from typing import Annotated

from pydantic import AliasChoices, Field

from evergrant import clock
from evergrant.broker.connect.confirmation import confirm_connection
from evergrant.broker.connect.start import ConnectRequest, begin_connect
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.errors import InvalidValue, MissingArgument
from evergrant.web.api.wire import (
    AppId,
    Flag,
    Nothing,
    OptionalId,
    OwnerId,
    PastedText,
    ShortText,
    WireModel,
    errors,
    example,
)
from evergrant.web.cors import BrowserRoute
from evergrant.web.deps import BrokerDep, Connector, ConnectorOrUser
from evergrant.web.routing import ApiRouter

router = ApiRouter(tags=["connect"])


Label = Annotated[ShortText, Field(max_length=120)]
"""Words that are shown to the user, and used for nothing else."""
LocaleTag = Annotated[PastedText, Field(max_length=16, pattern=r"^([A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*)?$")]


class ConnectOptions(WireModel):
    """What a backend may choose about a connect trip."""

    redirect_url: ShortText = Field(
        default="",
        validation_alias=AliasChoices("redirectUrl", "redirectURL"),
        description="Where the browser goes afterwards. Its origin must be on the project's list.",
    )
    scopes: list[ShortText] = Field(
        default_factory=list, max_length=500, description="Instead of the app's default scopes."
    )
    prompt: list[ShortText] = Field(
        default_factory=list, max_length=10, description="none, login, consent, select_account"
    )
    login_hint: ShortText = ""
    resources: list[ShortText] = Field(
        default_factory=list, max_length=20, description="Resource indicators (RFC 8707)."
    )
    variables: dict[ShortText, ShortText] = Field(
        default_factory=dict,
        max_length=50,
        description="Values of the template's variables that belong to this connection, its shop for example; the "
        "user is asked for those left out.",
    )
    external_identifier: OptionalId = Field(
        default="", description="Tells several accounts of one owner at one provider apart."
    )
    user_label: Label = Field(
        default="", description="Who the user is, in words that they know: a name, an address. Shown to them only."
    )
    tenant_label: Label = Field(default="", description="The same for the tenant.")
    locale: LocaleTag = Field(
        default="", description="The language of evergrant's pages, `de` or `pt-BR`; left out for the browser's."
    )


class Connect(WireModel):
    """Who shall connect what."""

    model_config = example(
        {
            "appId": "google-contacts",
            "userId": "alice",
            "options": {"redirectUrl": "https://app.example.com/connected", "userLabel": "Alice Liddell"},
        }
    )

    app_id: AppId
    user_id: OptionalId = Field(
        default="",
        description="The user who will consent, by your own id for them. Left out with a user's own JWT.",
    )
    tenant_id: OptionalId = ""
    tenant_level: Flag = Field(
        default=False, description="The consent is the tenant's, not the user's. Needs `tenantId`."
    )
    options: ConnectOptions = Field(default_factory=ConnectOptions)


class ConnectAnswer(WireModel):
    """Where to send the user's browser."""

    model_config = example({"url": "https://evergrant.example.com/connect/3q2-7wQx0Ck5nXy1mB8fLr6hJt4vZsPdEaUiOg9KcNM"})

    url: str = Field(description="Works once, for 10 minutes.")


class Confirm(WireModel):
    """Who came back from a connect trip of an app with `requireConfirmation`."""

    model_config = example({"confirmation": "Zk8vQ1t5rW2yXn7pLb4cMd9sHf3gJa6uEo0iKqRzT-Y", "userId": "alice"})

    confirmation: ShortText = Field(min_length=1, description="From the redirect; works once.")
    user_id: OwnerId = Field(description="The user who is logged in to your application in that browser.")


async def start_connect(body: Connect, broker: BrokerDep, principal: ConnectorOrUser) -> ConnectAnswer:
    """Return the link that takes the user through consent and back.

    With a user's JWT, the connect trip is for the user that it names: `userId` may be left out, and can be nobody else.
    """
    user_id = body.user_id or principal.user_id
    if not user_id and not principal.is_user:
        raise MissingArgument.of(("userId", "is required"))
    if body.tenant_level and not body.tenant_id:
        raise MissingArgument.of(("tenantId", "is required with tenantLevel"))
    if not user_id and not body.tenant_level:
        raise InvalidValue.of(("tenantLevel", "a token that names no user can connect its tenant only"))
    if body.options.prompt and any(not value for value in body.options.prompt):
        raise InvalidValue.of(("options.prompt", "leave out empty values"))
    wanted = ConnectRequest(
        app_id=body.app_id,
        owner=ResourceOwner("" if body.tenant_level else user_id, body.tenant_id),
        granted_by=user_id if body.tenant_level else "",
        external_identifier=body.options.external_identifier,
        scopes=tuple(body.options.scopes),
        redirect_url=body.options.redirect_url,
        prompt=tuple(body.options.prompt),
        login_hint=body.options.login_hint,
        resources=tuple(body.options.resources),
        variables=body.options.variables,
        user_label=body.options.user_label,
        tenant_label=body.options.tenant_label,
        locale=body.options.locale,
    )
    url = await begin_connect(broker, principal, wanted, now=clock.now())
    return ConnectAnswer(url=url)


async def start_connect_in_browser(body: Connect, broker: BrokerDep, principal: ConnectorOrUser) -> ConnectAnswer:
    """The same call where the browser SDK makes it, with the user's JWT."""
    return await start_connect(body, broker, principal)


for path, handler, summary in (
    ("/v1/mgmt/outbound/app/connect", start_connect, "Start a connect trip"),
    ("/v1/outbound/oauth/connect", start_connect_in_browser, "Start a connect trip from a browser"),
):
    router.add_api_route(
        path,
        handler,
        methods=["POST"],
        summary=summary,
        responses=errors(400, 404, 413, 502),
        route_class_override=BrowserRoute,
    )


@router.post("/v1/mgmt/outbound/app/connect/confirm", summary="Confirm who connected", responses=errors(400, 404, 413))
async def confirm_connect(body: Confirm, broker: BrokerDep, principal: Connector) -> Nothing:
    """Make a pending connection usable. A confirmation for another user than was meant deletes it instead."""
    await confirm_connection(
        broker,
        principal,
        confirmation=body.confirmation,
        user_id=body.user_id,
        now=clock.now(),
    )
    return Nothing()
