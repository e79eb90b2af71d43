"""evergrant with the practice provider beside it, in one server: what a trial on loopback starts with."""

from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from evergrant.broker.apps.provider_client import CALLBACK_PATH
from evergrant.broker.runtime.broker import PRACTICE_PATH
from evergrant.broker.trials.practice import PracticeClient
from evergrant.logs import configure_logging
from evergrant.practice.provider import create_provider, metadata
from evergrant.practice.world import SCOPES
from evergrant.settings import Settings, load_settings
from evergrant.web.app import create_app, with_traces

CLIENT_ID = "evergrant-practice"
CLIENT_SECRET = "pretend-secret"  # of pretend accounts on this machine; the same after a restart
ASKED = ("openid", "contacts.readonly")


def practice_client(issuer: str, client_secret: str = CLIENT_SECRET, guide: str = "") -> PracticeClient:
    """Return evergrant's registration at the practice provider of this issuer."""
    return PracticeClient(issuer, CLIENT_ID, client_secret, {scope: SCOPES[scope] for scope in ASKED}, guide)


def create_app_beside_practice(settings: Settings) -> FastAPI:
    """Make evergrant's application with the practice provider under `PRACTICE_PATH`.

    Its consents are in memory: after a restart it knows none of them, and users connect again.
    """
    ours = settings.public_url
    client = practice_client(f"{ours}{PRACTICE_PATH}")
    provider = create_provider(
        issuer=client.issuer,
        clients={client.client_id: client.client_secret},
        redirect_uris=[f"{ours}{CALLBACK_PATH}", f"{ours}{CALLBACK_PATH}/*"],
    )
    app = create_app(settings, practice=client)

    async def apart(scope: Scope, receive: Receive, send: Send) -> None:
        # With a scope of its own: it writes its own application into it, and evergrant's middleware looks for its own.
        await provider(dict(scope), receive, send)

    @app.get(f"/.well-known/oauth-authorization-server{PRACTICE_PATH}", include_in_schema=False)
    async def discovery() -> dict[str, Any]:
        return metadata(provider.state.provider)

    app.mount(PRACTICE_PATH, apart)
    return app


def create_app_from_environment() -> ASGIApp:
    """Make the application in the process of `evergrant serve`."""
    settings = load_settings()
    configure_logging(level=settings.log_level, style=settings.log_format)
    return with_traces(create_app_beside_practice(settings))
