"""Where MCP clients get a token for a project's endpoint (RFC 9728, OAuth 2.0 Protected Resource Metadata).

evergrant is no authorization server: the servers are the project's trusted issuers that are marked so.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import JSONResponse, Response

from evergrant.broker.projects.projects import load_project
from evergrant.broker.projects.trusted_issuers import list_issuers
from evergrant.broker.runtime.principal import CALL_SCOPE
from evergrant.errors import NotFound
from evergrant.web.deps import BrokerDep, counting_failures, refuse_odd_text
from evergrant.web.mcp_address import MCP_PATH, WELL_KNOWN, resource_url

router = APIRouter(include_in_schema=False, dependencies=[Depends(refuse_odd_text)])

CACHE_SECONDS = 60
ProjectInPath = Annotated[str, Path(max_length=31, pattern=r"^[!-~]+$")]
AppInPath = Annotated[str, Path(max_length=64, pattern=r"^[!-~]+$")]


@router.get(f"{WELL_KNOWN}{MCP_PATH}/{{project_id}}")
async def describe_endpoint(project_id: ProjectInPath, broker: BrokerDep, request: Request) -> Response:
    """Describe a project's MCP endpoint."""
    return await _document(request, broker, project_id)


@router.get(f"{WELL_KNOWN}{MCP_PATH}/{{project_id}}/~{{app_id}}")
async def describe_gateway(
    project_id: ProjectInPath, app_id: AppInPath, broker: BrokerDep, request: Request
) -> Response:
    """Describe the way through to the remote MCP server of one app.

    Whether the app is there is told to nobody without a credential.
    """
    return await _document(request, broker, project_id, app_id)


async def _document(request: Request, broker: BrokerDep, project_id: str, app_id: str = "") -> Response:
    async with counting_failures(request), broker.database.read() as session:
        try:
            project = await load_project(session, project_id)
        except NotFound:
            raise NotFound from None
    servers = [one.issuer for one in await list_issuers(broker, project_id) if one.mcp]
    document: dict[str, Any] = {
        "resource": resource_url(broker.settings.public_url, project_id, app_id),
        "scopes_supported": [CALL_SCOPE],
        "bearer_methods_supported": ["header"],
        "resource_name": project.name,
    }
    if servers:  # what has no elements is left out (section 3.2)
        document["authorization_servers"] = servers
    # Anybody may read it, and clients that run in a page do.
    headers = {"Cache-Control": f"public, max-age={CACHE_SECONDS}", "Access-Control-Allow-Origin": "*"}
    return JSONResponse(document, headers=headers)
