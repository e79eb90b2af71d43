"""Connections of apps that obtain their tokens by themselves, put into the database of an installation."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import SecretStr

from evergrant import clock
from evergrant.broker.apps.apps import load_app
from evergrant.broker.connections.upload import TokenUpload, prepare_upload, store_upload
from evergrant.broker.grants.credentials import as_secret
from evergrant.broker.grants.grants import ResourceOwner
from evergrant.broker.runtime.broker import open_broker
from evergrant.oauth2.id_token import Subject
from evergrant.settings import Settings
from tests.infra.waiting import in_a_thread


@dataclass(frozen=True)
class Uploaded:
    """What a connection has: the fields of its credentials, and perhaps a token that ends at an epoch second."""

    fields: Mapping[str, str]
    access_token: str = ""
    expiry: int = 0


def upload_credentials(settings: Settings, project_id: str, app_id: str, users: Mapping[str, Uploaded]) -> None:
    """Give each user a connection."""

    async def store() -> None:
        async with open_broker(settings) as broker:
            app, now = await load_app(broker, project_id, app_id), clock.now()
            prepared = [
                await prepare_upload(
                    broker,
                    app,
                    TokenUpload(
                        app_id=app_id,
                        owner=ResourceOwner(user),
                        refresh_token=as_secret(it.fields),
                        access_token=SecretStr(it.access_token) if it.access_token else None,
                        access_token_expiry=it.expiry,
                    ),
                    subject=Subject(),
                    now=now,
                )
                for user, it in users.items()
            ]
            async with broker.database.write() as session:
                for one in prepared:
                    await store_upload(broker, session, project_id, one, None, app_type=app.app_type, now=now)

    in_a_thread(store())
