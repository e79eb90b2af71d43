"""Writes the file of `evergrant apply` from what a project has: applied there, it changes nothing."""

import os
from pathlib import Path
from typing import Any

import yaml

from evergrant.broker.access.policies import list_policies
from evergrant.broker.apps.apps import list_apps
from evergrant.broker.apps.definition import AppDefinition, CompleteDefinition
from evergrant.broker.apps.merge import merge
from evergrant.broker.apps.templates import definition_of
from evergrant.broker.apps.variables import template_of
from evergrant.broker.projects.projects import load_project
from evergrant.broker.projects.trusted_issuers import list_issuers
from evergrant.broker.runtime.broker import Broker
from evergrant.broker.webhooks.registry import list_webhooks
from evergrant.db import OutboundApp
from evergrant.errors import InvalidRequest
from evergrant.web.api.app_answer_wire import app_body
from evergrant.web.api.app_wire import AppFields, stored_as
from evergrant.web.api.policies import CreatePolicy
from evergrant.web.api.trusted_issuers import CreateIssuer
from evergrant.web.api.wire import StrictWireModel

_HEAD = """\
# What the project {project} has, for 'evergrant apply'.
# Secrets are not in it, and stay as they are. Another installation needs them: clientSecret: env:NAME, or file:PATH.
# A webhook's address is in it, and can be as good as a password: then write url: env:NAME before others read this.
"""


async def write_file(broker: Broker, project_id: str, path: Path) -> None:
    """Write a new file that only its owner may read: addresses of webhooks can be as good as passwords.

    Raises:
        InvalidRequest: it is there already, or cannot be written.
        NotFound: there is no such project.
    """
    async with broker.database.read() as session:
        project = await load_project(session, project_id)
    data = {
        "project": {
            "name": project.name,
            "redirectOrigins": project.redirect_origins,
            "embedOrigins": project.embed_origins,
        },
        "apps": [_app(broker, app) for app in await list_apps(broker, project_id)],
        "trustedIssuers": [
            _named(CreateIssuer, row, login={"client_id": row.login_client_id} if row.login_client_id else None)
            for row in await list_issuers(broker, project_id)
        ],
        "policies": [_named(CreatePolicy, row) for row in await list_policies(broker, project_id)],
        "webhooks": [
            {"url": row.url, "description": row.description, "eventTypes": row.event_types, "enabled": row.enabled}
            for row in await list_webhooks(broker, project_id)
        ],
    }
    text = _HEAD.format(project=project_id) + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InvalidRequest(f"{path} is there already: name a new file") from None
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {error.strerror}") from None


def _named(model: type[StrictWireModel], row: object, **others: object) -> dict[str, Any]:
    """Return a row's fields that differ from their defaults; `others` are those that a row has otherwise."""
    same = {name: getattr(row, name) for name in model.model_fields if name not in others}
    return model.model_validate(same | others).model_dump(mode="json", by_alias=True, exclude_defaults=True)


def _app(broker: Broker, app: OutboundApp) -> dict[str, Any]:
    """Return an app's fields where they differ from those of a new one, made from the same template if it has one."""
    template = template_of(broker, app)
    start = definition_of(template) if template is not None else AppDefinition(name="")
    new = merge(CompleteDefinition(id=app.id, name=""), start)
    skipped = {"client_secret", "signing_key"}
    if app.registered_redirect_uri:  # evergrant has registered this client by itself, for this installation
        skipped.add("client_id")
    differing = {
        name
        for name in AppFields.model_fields
        if name not in skipped and getattr(app, stored_as(name)) != getattr(new, stored_as(name))
    }
    shown = app_body(broker, app).model_dump(mode="json", by_alias=True, include=differing)
    return {"id": app.id, **({"templateId": app.template_id} if template is not None else {}), **shown}
