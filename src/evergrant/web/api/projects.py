"""The project itself: its name and origins, and its deletion, by a key of it that may do everything."""

from datetime import timedelta
from typing import Annotated

from fastapi import Depends
from pydantic import Field

from evergrant import clock
from evergrant.broker.projects import projects, shredding
from evergrant.broker.projects.shredding import MOST_COUNTED
from evergrant.broker.runtime.authority import Authority, require_no_more
from evergrant.broker.runtime.principal import ALL_PERMISSIONS, Principal
from evergrant.db import Project
from evergrant.web.api.wire import (
    Flag,
    PastedText,
    ShortText,
    StrictWireModel,
    Text,
    WireModel,
    epoch,
    errors,
    example,
)
from evergrant.web.deps import AppsReader, BrokerDep, principal_of
from evergrant.web.routing import ApiRouter

router = ApiRouter(prefix="/v1/mgmt/project", tags=["projects"])

MAX_HOURS = 24 * 30
Origins = Annotated[list[ShortText], Field(max_length=100)]
PROJECT_EXAMPLE = {
    "id": "P2nq5Jx8Vb",
    "name": "Acme Assistant",
    "redirectOrigins": ["https://app.acme.example"],
    "embedOrigins": [],
    "createdTime": "1741103514",
}


class DeleteProject(WireModel):
    """Which project to delete, as a confirmation, and whether the providers are told first."""

    model_config = example({"projectId": "P2nq5Jx8Vb", "revokeFirst": False})

    project_id: Annotated[Text, Field(min_length=1, max_length=100)] = Field(
        description="The id of the project that the key belongs to."
    )
    revoke_first: Flag = Field(
        default=False, description="Revoke the connections at the providers, and destroy the data keys after that."
    )
    within_hours: int = Field(
        default=24,
        ge=1,
        le=MAX_HOURS,
        strict=True,
        description="With `revokeFirst`: when the data keys are destroyed at the latest.",
    )


class DeletedProject(WireModel):
    """How far the deletion is."""

    model_config = example({"projectId": "P2nq5Jx8Vb", "shreddedTime": "1741103514", "shredTime": "", "dataKeys": 1})

    project_id: str
    shredded_time: str = Field(description="When the data keys were destroyed, in epoch seconds; empty: not yet.")
    shred_time: str = Field(description="When they will be at the latest, in epoch seconds; empty: they are.")
    data_keys: int = Field(description="How many data keys were destroyed.")


class ProjectBody(WireModel):
    """A project."""

    id: str
    name: str = Field(description="Users read it on every page.")
    redirect_origins: list[str] = Field(description="Where connect trips may return to.")
    embed_origins: list[str] = Field(description="Whose pages may show connected accounts in a frame.")
    created_time: str = Field(description="In epoch seconds.")


class ProjectAnswer(WireModel):
    """The project as it is now."""

    model_config = example({"project": PROJECT_EXAMPLE})

    project: ProjectBody


class LoadedProject(ProjectAnswer):
    """The project, and how much it has."""

    model_config = example({"project": PROJECT_EXAMPLE, "apps": 12, "connections": 4821})

    apps: int = Field(description=f"Counted up to {MOST_COUNTED:,}: one more means more.")
    connections: int = Field(description="The same.")


class UpdateProject(StrictWireModel):
    """What to change. What is left out stays as it is."""

    model_config = StrictWireModel.model_config | example(
        {"name": "Acme Assistant", "embedOrigins": ["https://app.acme.example"]}
    )

    name: PastedText | None = Field(default=None, description="At most 200 characters.")
    redirect_origins: Origins | None = Field(default=None, description="All of them: scheme, host and port of each.")
    embed_origins: Origins | None = Field(default=None, description="All of them.")


@router.get("", summary="Load the project", responses=errors())
async def load_project(broker: BrokerDep, principal: AppsReader) -> LoadedProject:
    """Return the project that the key belongs to. The key must not be limited to some apps."""
    principal.require_every_app()
    async with broker.database.read() as session:
        project = await projects.load_project(session, principal.project_id)
    stock = await shredding.stock_of(broker, principal.project_id)
    return LoadedProject(project=_answer(project).project, apps=stock.apps, connections=stock.connections)


@router.post("/update", summary="Change the project", responses=errors(400, 413))
async def update_project(
    body: UpdateProject, broker: BrokerDep, principal: Annotated[Principal, Depends(principal_of)]
) -> ProjectAnswer:
    """Change the project's name, and the origins of its applications. Effective everywhere within 5 seconds.

    Origins decide who gets what connect trips bring back, so the key must have every permission and no limit.
    """
    require_no_more(principal, Authority(permissions=ALL_PERMISSIONS), what="a change of its project")
    project = await projects.update_project(
        broker,
        principal.project_id,
        name=body.name,
        redirect_origins=body.redirect_origins,
        embed_origins=body.embed_origins,
    )
    return _answer(project)


def _answer(project: Project) -> ProjectAnswer:
    return ProjectAnswer(
        project=ProjectBody(
            id=project.id,
            name=project.name,
            redirect_origins=project.redirect_origins,
            embed_origins=project.embed_origins,
            created_time=epoch(project.created_at),
        )
    )


@router.post("/delete", summary="Delete the project", responses=errors(400, 404, 413))
async def delete_project(
    body: DeleteProject, broker: BrokerDep, principal: Annotated[Principal, Depends(principal_of)]
) -> DeletedProject:
    """Destroy the project's data keys and close it: nobody gets in and nobody can read its secrets any more.

    The key must have every permission and no limit. It works no longer after this call.
    """
    now = clock.now()
    within = timedelta(hours=body.within_hours) if body.revoke_first else None
    deletion = await shredding.delete_project(broker, principal, body.project_id, revoke_within=within, now=now)
    return DeletedProject(
        project_id=principal.project_id,
        shredded_time="" if deletion.shred_at else epoch(now),
        shred_time=epoch(deletion.shred_at),
        data_keys=len(deletion.destroyed),
    )
