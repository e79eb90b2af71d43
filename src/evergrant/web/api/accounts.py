"""Opening a user's connected accounts, for a backend or for the user itself."""

from typing import Annotated, Literal

from pydantic import Field

from evergrant import clock
from evergrant.broker.portal.sessions import VisitRequest, make_visit
from evergrant.errors import MissingArgument
from evergrant.web.api.wire import AppId, OptionalId, PastedText, ShortText, WireModel, epoch, errors, example
from evergrant.web.cors import BrowserRoute
from evergrant.web.deps import BrokerDep, ConnectorOrUser
from evergrant.web.routing import ApiRouter

router = ApiRouter(prefix="/v1/mgmt/outbound", tags=["connect"])

Label = Annotated[PastedText, Field(max_length=120)]


class AccountsSession(WireModel):
    """Whose connected accounts to show, and what may be done there."""

    model_config = example(
        {
            "userId": "alice",
            "userLabel": "Ada Lovelace (ada@example.com)",
            "returnUrl": "https://app.example.com/settings",
        }
    )

    user_id: OptionalId = Field(
        default="", description="The user, by your own id for them. Left out with a user's own JWT."
    )
    tenant_id: OptionalId = Field(
        default="",
        description="Show the user's connections within this tenant, and those that the tenant shares; without it, the "
        "user's connections in no tenant.",
    )
    user_label: Label = Field(default="", description="Who the user is, in words that they know. Shown, and no more.")
    tenant_label: Label = Field(default="", description="The tenant's name, likewise.")
    app_ids: list[AppId] = Field(
        default_factory=list, max_length=200, description="The only apps to show; left out, all that you may use."
    )
    allow: list[Literal["connect", "disconnect"]] = Field(
        default_factory=list,
        max_length=2,
        description="What the user may do there; left out, all that you may do. `disconnect` takes a key with "
        "`tokens:write`, or the user's own JWT.",
    )
    locale: PastedText = Field(
        default="", max_length=16, description="The page's language, `de` for example; left out, the browser's."
    )
    return_url: ShortText = Field(
        default="", description="Where Back leads. Its origin must be on the project's list of redirect origins."
    )
    scopes: dict[AppId, list[ShortText]] = Field(
        default_factory=dict,
        max_length=200,
        description="By app id: the scopes that a connect button may ask for beside the app's default scopes.",
    )


class AccountsSessionAnswer(WireModel):
    """Where to send the user's browser, or what to give to `<evergrant-accounts session=...>`."""

    model_config = example(
        {
            "url": "https://evergrant.example.com/accounts/3q2-7wQx0Ck5nXy1mB8fLr6hJt4vZsPdEaUiOg9KcNM",
            "expiresTime": "1741103574",
        }
    )

    url: str = Field(description="Opens once, within 60 seconds; after that the page lives for 30 minutes.")
    expires_time: str = Field(description="Epoch seconds as text: until when it opens.")


async def open_accounts(body: AccountsSession, broker: BrokerDep, principal: ConnectorOrUser) -> AccountsSessionAnswer:
    """Return a link to the page on which a user sees, connects and disconnects their accounts.

    With a user's JWT, the page is for the user that it names: `userId` may be left out, and can be nobody else.
    """
    user_id = body.user_id or principal.user_id
    if not user_id:
        raise MissingArgument.of(("userId", "is required"))
    wanted = VisitRequest(
        user_id=user_id,
        tenant_id=body.tenant_id,
        user_label=body.user_label,
        tenant_label=body.tenant_label,
        app_ids=body.app_ids,
        allow=body.allow,
        scopes=body.scopes,
        locale=body.locale,
        return_url=body.return_url,
    )
    url, opens_until = await make_visit(broker, principal, wanted, now=clock.now())
    return AccountsSessionAnswer(url=url, expires_time=epoch(opens_until))


router.add_api_route(
    "/accounts/session",
    open_accounts,
    methods=["POST"],
    summary="Open a user's connected accounts",
    responses=errors(400, 413),
    route_class_override=BrowserRoute,
)
