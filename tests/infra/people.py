"""People who connect: new ones, ones whose consent has ended, and ones who call with a token of their own."""

import uuid
from typing import Any

import httpx2

from evergrant.practice.faults import instead
from tests.infra.installation import APP_ID, BACK, SCOPES, Backend, Installation
from tests.infra.issuer import AUDIENCE, Issuer

DEAD = {"error": "invalid_grant", "error_description": "revoked by the user"}


def someone() -> str:
    """Return a user whom no other test has connected."""
    return f"user-{uuid.uuid4().hex[:12]}"


def kill(here: Installation, user: str, **fields: Any) -> None:
    """Let the provider say that a user's consent has ended; `fields` tell which, as in a fetch."""
    connection = here.backend.token(user, **fields)["id"]
    here.provider.state.next_token_answers.append(instead(400, DEAD))
    answer = here.backend.post("token/refresh", {"id": connection})
    assert answer.status_code == 404, answer.text


def trust(backend: Backend, trusted: Issuer, **fields: Any) -> str:
    """Trust an issuer by the API and return its id."""
    body = {"issuer": trusted.url, "audience": AUDIENCE, "tenantClaim": "tenant", **fields}
    answer = backend.http.post("/v1/mgmt/trustedissuer", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["trustedIssuer"]["id"])


def call(here: Installation, path: str, token: str, body: Any, *, project: str | None = None) -> httpx2.Response:
    """Call with `Bearer <PROJECT_ID>:<JWT>`, or without a project where it is empty."""
    project_id = here.backend.project_id if project is None else project
    credential = f"{project_id}:{token}" if project_id else token
    whole = path if path.startswith("/") else f"/v1/mgmt/outbound/{path}"
    with httpx2.Client(base_url=here.url, trust_env=False) as http:
        return http.post(whole, json=body, headers={"Authorization": f"Bearer {credential}"})


def fetch(here: Installation, token: str, user_id: str = "alice", **fields: Any) -> httpx2.Response:
    """Fetch a user's token by scopes, with a JWT."""
    body = {"appId": APP_ID, "userId": user_id, "scopes": SCOPES, **fields}
    return call(here, "app/user/token", token, body)


def connect(here: Installation, token: str, **fields: Any) -> httpx2.Response:
    """Start a connect trip with a JWT."""
    body = {"appId": APP_ID, "options": {"redirectUrl": BACK}, **fields}
    return call(here, "app/connect", token, body)


def refused(answer: httpx2.Response, status: int, code: str) -> bool:
    """Whether it is this error, in the documented form."""
    return (answer.status_code, answer.json().get("errorCode")) == (status, code)
