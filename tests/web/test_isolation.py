"""Walls: whatever one project, user or tenant calls, in whatever order, it reads and changes nothing of another's."""

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.infra.databases import settings_for
from tests.infra.installation import Backend, Installation, installation, new_project
from tests.infra.issuer import AUDIENCE, Issuer
from tests.infra.rows import Dump, dump
from tests.infra.scripted import serving
from tests.infra.waiting import PATIENCE

USERS, TENANTS = ("alice", "bob"), ("acme", "globex")
APP = "shared-name"
OWNERS = [*((user, "") for user in USERS), *itertools.product(USERS, TENANTS), *(("", tenant) for tenant in TENANTS)]


class Project(NamedTuple):
    """A project, what it may never show to others, and how its users sign in."""

    name: str
    backend: Backend
    issuer: Issuer

    def secret(self, user: str, tenant: str) -> str:
        return f"secret-of-{self.name}/{user or '-'}/{tenant or '-'}"


class Walls(NamedTuple):
    here: Installation
    projects: tuple[Project, Project]
    token_ids: list[str]
    http: httpx2.Client


def connect_everybody(project: Project) -> list[str]:
    """Give every owner of a project a token whose text says whose it is, and return the tokens' ids."""
    backend = project.backend
    assert backend.post("app/create", {"id": APP, "name": "The same name"}).status_code == 200
    answer = backend.http.post(
        "/v1/mgmt/trustedissuer",
        json={
            "issuer": project.issuer.url,
            "jwksUrl": f"{project.issuer.url}/jwks",
            "audience": AUDIENCE,
            "tenantClaim": "tenant",
        },
    )
    assert answer.status_code == 200, answer.text
    for user, tenant in OWNERS:
        owner = {"userId": user, "tenantId": tenant} if user else {"tenantId": tenant}
        level = "user" if user else "tenant"
        token = {"appId": APP, **owner, "accessToken": project.secret(user, tenant), "scopes": ["read"]}
        assert backend.post(f"app/{level}/oauthtoken/upload", token).status_code == 200
    listed = backend.get("tokens").json()["tokens"]
    assert len(listed) == len(OWNERS)
    return [token["id"] for token in listed]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def walls(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walls]:
    """Two projects in one installation, alike in every name."""
    with (
        settings_for(request, tmp_path_factory) as chosen,
        installation(chosen) as here,
        serving(Issuer()) as first,
        serving(Issuer()) as second,
    ):
        made = new_project(chosen)
        other = Backend(here.url, made.project_id, made.management_key)
        projects = (Project("one", here.backend, first), Project("two", other, second))
        ids = [token_id for project in projects for token_id in connect_everybody(project)]
        with httpx2.Client(base_url=f"{here.url}/v1/mgmt/outbound/", timeout=PATIENCE, trust_env=False) as http:
            yield Walls(here, projects, ids, http)
        other.http.close()


def rows_of(tables: Dump, project_id: str) -> dict[str, Any]:
    return {
        table: [row for row in rows if row.get("project_id", row.get("id")) == project_id]
        for table, rows in tables.items()
    }


names = st.sampled_from([*USERS, *TENANTS, "", "%", "nobody"])
ids = st.integers(min_value=0, max_value=2 * len(OWNERS) - 1)


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, str, dict[str, Any]]:
    """Return a method, a path and a body or query, with whatever names and ids there are."""
    user, tenant, number = draw(names), draw(names), draw(ids)
    owner = {"userId": user, "tenantId": tenant}
    options = {"withRefreshToken": draw(st.booleans())}
    some: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "app/user/token", {"appId": APP, **owner, "scopes": ["read"], "options": options}),
        ("POST", "app/user/token", {"appId": APP, **owner, "scopes": []}),
        ("POST", "app/user/token/latest", {"appId": APP, **owner}),
        ("POST", "app/tenant/token", {"appId": APP, "tenantId": tenant, "scopes": ["read"]}),
        ("POST", "app/tenant/token/latest", {"appId": APP, "tenantId": tenant}),
        ("GET", "apps-with-user-token", owner),
        ("GET", "tokens", {"appId": APP, **owner}),
        ("GET", "apps", {}),
        ("POST", "token/refresh", {"id": number}),
        ("POST", "app/connect", {"appId": APP, **owner}),
    ]
    chosen: tuple[str, str, dict[str, Any]] = draw(st.sampled_from(some))
    return chosen


@st.composite
def destructive_calls(draw: st.DrawFn) -> tuple[str, str, dict[str, Any]]:
    """Return a call that takes something away where it may."""
    some: list[tuple[str, str, dict[str, Any]]] = [
        ("DELETE", "token", {"id": draw(ids)}),
        ("POST", "token/revoke", {"id": draw(ids)}),
        ("DELETE", "user/tokens", {"userId": draw(names)}),
        ("POST", "app/update", {"app": {"id": APP, "name": "The same name", "description": "changed"}}),
    ]
    chosen: tuple[str, str, dict[str, Any]] = draw(st.sampled_from(some))
    return chosen


def send(walls: Walls, credential: str, call: tuple[str, str, dict[str, Any]]) -> httpx2.Response:
    method, path, arguments = call
    if "id" in arguments:
        arguments = {**arguments, "id": walls.token_ids[arguments["id"]]}
    arguments = {name: value for name, value in arguments.items() if value != ""}
    headers = {"Authorization": f"Bearer {credential}"}
    if method == "POST":
        return walls.http.post(path, headers=headers, json=arguments)
    return walls.http.request(method, path, headers=headers, params=arguments)


SPARED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
FEW = settings(max_examples=40, suppress_health_check=SPARED)


@FEW
@given(sequence=st.lists(calls(), min_size=1, max_size=4), which=st.integers(0, 1))
def test_a_project_never_sees_anothers_secrets(walls: Walls, sequence: list[Any], which: int) -> None:
    mine, other = walls.projects[which], walls.projects[1 - which]
    for call in sequence:
        answer = send(walls, f"{mine.backend.project_id}:{mine.backend.management_key}", call)
        assert answer.status_code < 500, answer.text
        assert f"secret-of-{other.name}" not in answer.text
        assert other.backend.project_id not in answer.text


@FEW
@given(
    sequence=st.lists(calls(), min_size=1, max_size=4),
    which=st.integers(0, 1),
    user=st.sampled_from(USERS),
    tenant=st.sampled_from([*TENANTS, ""]),
    kind=st.sampled_from(["session", "access", "machine"]),
    crossed=st.booleans(),
)
def test_a_token_reaches_only_whom_it_names(
    walls: Walls, sequence: list[Any], which: int, user: str, tenant: str, kind: str, crossed: bool
) -> None:
    mine = walls.projects[which]
    claims = {"tenant": tenant} if tenant else {}
    match kind:
        case "session":
            token, allowed = mine.issuer.session(user, **claims), set()
        case "access":
            # the user's own token, and the user's within the tenant that the token names
            token = mine.issuer.access(user, **claims)
            allowed = {mine.secret(user, ""), *([mine.secret(user, tenant)] if tenant else [])}
        case _:
            token = mine.issuer.machine(tenant or TENANTS[0])
            allowed = {mine.secret("", tenant or TENANTS[0])}
    project = walls.projects[1 - which] if crossed else mine
    for call in sequence:
        answer = send(walls, f"{project.backend.project_id}:{token}", call)
        assert answer.status_code < 500, answer.text
        if answer.status_code == 200 and call[1].endswith(("token", "latest")) and "accessToken" in answer.text:
            assert not crossed, "a project took another project's token for its own"
            assert answer.json()["token"]["accessToken"] in allowed
        else:
            assert "secret-of-" not in answer.text


def test_whatever_a_project_deletes_or_changes_is_its_own(walls: Walls) -> None:
    first, second = walls.projects
    credential = f"{first.backend.project_id}:{first.backend.management_key}"
    before = rows_of(dump(walls.here.settings), second.backend.project_id)

    @settings(max_examples=25, suppress_health_check=SPARED)
    @given(sequence=st.lists(destructive_calls(), min_size=1, max_size=4))
    def destroy(sequence: list[Any]) -> None:
        for call in sequence:
            assert send(walls, credential, call).status_code < 500

    destroy()
    assert rows_of(dump(walls.here.settings), second.backend.project_id) == before
    # and there was something to lose: the first project's own tokens are gone
    assert len(first.backend.get("tokens").json()["tokens"]) < len(OWNERS)


def test_the_rows_compared_are_really_the_projects_own(walls: Walls) -> None:
    second = walls.projects[1]
    mine = rows_of(dump(walls.here.settings), second.backend.project_id)
    assert len(mine["grants"]) == len(OWNERS)
    assert len(mine["projects"]) == 1


def test_the_projects_are_alike_in_every_name(walls: Walls) -> None:
    first, second = (asyncio.run(_apps(project)) for project in walls.projects)
    assert first & second == {APP}


async def _apps(project: Project) -> set[str]:
    return {app["id"] for app in project.backend.get("apps").json()["apps"]}
