"""Logos: those that operators have uploaded, and those of the catalogue. No page loads one from anywhere else."""

from collections.abc import Collection, Mapping
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response

from evergrant.broker.apps.logos import load_app_logo, logo_versions
from evergrant.broker.projects.branding import Brand, load_project_logo
from evergrant.broker.projects.pictures import Picture
from evergrant.broker.runtime.broker import Broker
from evergrant.db import OutboundApp
from evergrant.web.deps import BrokerDep, counting_failures, refuse_odd_text
from evergrant.web.static_files import FOR_A_WHILE, FOR_EVER, has_static, static_url
from evergrant.web.theme import ProjectPath, Version

router = APIRouter(include_in_schema=False, dependencies=[Depends(refuse_odd_text)])

AppPath = Annotated[str, Path(max_length=64, pattern=r"^[!-~]+$")]
HEADERS = {
    # Should a browser ever take one for a page, that page can do nothing.
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Headers of what somebody has uploaded, beside those of every answer (nosniff)."""


async def logo_sources(broker: Broker, project_id: str, apps: Collection[OutboundApp]) -> Mapping[str, str]:
    """Return the address of each app's logo by the app's id: the uploaded one, the catalogue's, or an empty text."""
    versions = await logo_versions(broker, project_id, [app.id for app in apps])
    return {app.id: logo_source(app, versions.get(app.id, "")) for app in apps}


def logo_source(app: OutboundApp, version: str) -> str:
    """Return the address of an app's logo; `version` is the uploaded one's, empty for none."""
    return app_logo(app.project_id, app.id, version) if version else template_logo(app.template_id)


def app_logo(project_id: str, app_id: str, version: str) -> str:
    """Return the address of an app's uploaded logo, which changes with it."""
    return f"/logo/{quote(project_id, safe='')}/{quote(app_id, safe='')}?v={version}"


def template_logo(template_id: str) -> str:
    """Return the address of the logo that evergrant has for a template; empty where it has none."""
    name = f"logos/{template_id}.svg"
    return static_url(name) if template_id and has_static(name) else ""


def project_logo(project_id: str, brand: Brand) -> str:
    """Return the address of a project's logo, which changes with its branding; empty where it has none."""
    return f"/logo/{quote(project_id, safe='')}?v={brand.version}" if brand.has_logo else ""


@router.get("/logo/{project}")
async def of_project(project: ProjectPath, request: Request, broker: BrokerDep, version: Version = "") -> Response:
    """Answer with a project's logo."""
    async with counting_failures(request):
        picture, current = await load_project_logo(broker, project)
    return _answer(picture, is_current=version == current)


@router.get("/logo/{project}/{app}")
async def of_app(
    project: ProjectPath, app: AppPath, request: Request, broker: BrokerDep, version: Version = ""
) -> Response:
    """Answer with an app's uploaded logo."""
    async with counting_failures(request):
        picture, current = await load_app_logo(broker, project, app)
    return _answer(picture, is_current=version == current)


def _answer(picture: Picture, *, is_current: bool) -> Response:
    kept = FOR_EVER if is_current else FOR_A_WHILE
    return Response(picture.content, headers={**HEADERS, "Cache-Control": kept}, media_type=picture.media_type)
