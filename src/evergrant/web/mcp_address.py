"""Where a project's MCP endpoint is, and how callers that it does not let in learn where to get a token (RFC 9728)."""

from urllib.parse import quote

from evergrant.broker.runtime.principal import CALL_SCOPE

WELL_KNOWN = "/.well-known/oauth-protected-resource"
MCP_PATH = "/mcp"


def resource_url(public_url: str, project_id: str, app_id: str = "") -> str:
    """Return the address of a project's MCP endpoint, or of the way through to one app's remote server.

    It is what a token for it has in the claim `aud` (RFC 8707).
    """
    return public_url + _path(project_id, app_id)


def challenge(public_url: str, project_id: str, app_id: str = "", *, error: str = "") -> str:
    """Return the value of `WWW-Authenticate` for somebody who is not let in (RFC 6750 section 3, RFC 9728 section 5.1).

    `error` is `invalid_token` with 401, `insufficient_scope` with 403, and empty where nothing was presented.
    """
    said = [f'error="{error}"'] if error else []
    said += [f'resource_metadata="{public_url}{WELL_KNOWN}{_path(project_id, app_id)}"', f'scope="{CALL_SCOPE}"']
    return f"Bearer {', '.join(said)}"


def _path(project_id: str, app_id: str) -> str:
    through = f"/~{quote(app_id, safe='')}" if app_id else ""
    return f"{MCP_PATH}/{quote(project_id, safe='')}{through}"
