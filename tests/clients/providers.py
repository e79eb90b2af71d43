"""Providers' APIs as their published SDKs expect them: a list of two pages, something to write, an error."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.infra.scripted import Answer, Request, ScriptedProvider, answer, json_answer, serving

TOKENS = {name: f"the-token-of-{name}" for name in ("github", "slack", "stripe", "notion")}


def only_with(token: str, inner: Any) -> Any:
    """Let in who brings the token, as a provider does."""

    def decide(request: Request) -> Answer:
        if request.headers.get("authorization") != f"Bearer {token}":
            return 401, {"message": "Bad credentials", "error": {"message": "no", "type": "invalid_request_error"}}
        return inner(request)

    return decide


def github_issues(request: Request) -> Answer:
    if request.method == "POST":
        return 201, issue(3, request.json["title"])
    if request.query.get("page") == "2":
        return json_answer(200, [issue(2, "Second")])
    # As there: an address under the API's own base.
    url = f"http://{request.headers['host']}{request.path}?page=2"
    return json_answer(200, [issue(1, "First")], link=f'<{url}>; rel="next", <{url}>; rel="last"')


def issue(number: int, title: str) -> dict[str, Any]:
    return {"number": number, "title": title, "url": f"https://api.github.com/repos/acme/shop/issues/{number}"}


def slack_list(request: Request) -> Answer:
    second = request.params.get("cursor") == "page-2"
    return {
        "ok": True,
        "channels": [{"id": "C2" if second else "C1"}],
        "response_metadata": {"next_cursor": "" if second else "page-2"},
    }


def slack_post(request: Request) -> Answer:
    if request.params["channel"] != "C1":
        return {"ok": False, "error": "channel_not_found"}
    return {"ok": True, "ts": "1.2", "message": {"text": request.params["text"]}}


def stripe_customers(request: Request) -> Answer:
    if request.method == "POST":
        return {"id": "cus_3", "object": "customer", "email": request.form["email"]}
    second = request.query.get("starting_after") == "cus_1"
    return {
        "object": "list",
        "url": "/v1/customers",
        "has_more": not second,
        "data": [{"id": "cus_2" if second else "cus_1", "object": "customer"}],
    }


def notion_users(request: Request) -> Answer:
    second = request.query.get("start_cursor") == "page-2"
    return {
        "object": "list",
        "results": [{"object": "user", "id": "u2" if second else "u1"}],
        "has_more": not second,
        "next_cursor": None if second else "page-2",
    }


ROUTES: dict[str, dict[str, Any]] = {
    "github": {
        "/repos/acme/shop/issues": github_issues,
        "/repos/acme/gone": lambda _: (404, {"message": "Not Found", "status": "404"}),
    },
    "slack": {"/api/conversations.list": slack_list, "/api/chat.postMessage": slack_post},
    "stripe": {
        "/v1/customers": stripe_customers,
        "/v1/customers/cus_gone": lambda _: (
            404,
            {"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "No such customer"}},
        ),
    },
    "notion": {
        "/v1/users": notion_users,
        "/v1/pages": lambda request: {"object": "page", "id": "p1", "properties": request.json["properties"]},
        "/v1/pages/gone": lambda _: (
            404,
            {"object": "error", "status": 404, "code": "object_not_found", "message": "No"},
        ),
    },
}
"""By app and path."""
BASES = {"github": "", "slack": "/api", "stripe": "", "notion": ""}
"""What stands behind the host in each API's base."""


@contextmanager
def provider_apis() -> Iterator[ScriptedProvider]:
    """Run all of them at one address."""
    routes = {path: only_with(TOKENS[app], inner) for app, paths in ROUTES.items() for path, inner in paths.items()}
    with serving(ScriptedProvider(routes=routes, others=[answer(404, b"{}", "application/json")])) as running:
        yield running
