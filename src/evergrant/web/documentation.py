"""The OpenAPI document, and a page that shows it without scripts: FastAPI's own page loads them from elsewhere."""

import json
import re
from collections.abc import Iterator, Mapping, Set
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Path, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response

from evergrant.errors import NotFound
from evergrant.web.cors import CALLED_FROM_BROWSERS
from evergrant.web.deps import refuse_odd_text
from evergrant.web.headers import LIMIT_HEADERS
from evergrant.web.templating import page

router = APIRouter(include_in_schema=False, dependencies=[Depends(refuse_odd_text)])

Tag = Annotated[str, Path(max_length=40, pattern=r"^[a-z-]+$")]

_LIMIT_HEADERS = {name: {"description": text, "schema": {"type": "integer"}} for name, text in LIMIT_HEADERS.items()}
_REF = "#/components/schemas/"


def openapi_document(
    app: FastAPI,
    *,
    user_calls: Set[str] = frozenset(),
    paths: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the OpenAPI document, made once.

    `user_calls` are the paths, beside those that browsers call, where a user's own token will do; `paths` are no
    routes, and described already.
    """
    if app.openapi_schema is not None:
        return app.openapi_schema
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    schemas = document["components"]["schemas"]
    document["components"]["securitySchemes"] = {
        "managementKey": {
            "type": "http",
            "scheme": "bearer",
            "description": "`Authorization: Bearer <PROJECT_ID>:<MANAGEMENT_KEY>`",
        },
        "userToken": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "`Authorization: Bearer <PROJECT_ID>:<JWT>`, or `Bearer <JWT>` where one project only trusts"
            " its issuer. For the user that the token names.",
        },
    }
    for path, _, operation in _operations(document):
        # FastAPI documents its own validation answer, which we never give
        operation["responses"].pop("422", None)
        if path.startswith("/v1/mgmt/") or path in CALLED_FROM_BROWSERS:
            operation["security"] = [{"managementKey": []}]
        if path in CALLED_FROM_BROWSERS or path in user_calls:
            operation["security"].append({"userToken": []})
        if "429" in operation["responses"]:
            for status in ("200", "429"):
                operation["responses"][status]["headers"] = _LIMIT_HEADERS
    document["paths"].update(paths or {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    app.openapi_schema = document
    return document


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Show the OpenAPI document to a person: what calls there are."""
    return _docs(request, "")


@router.get("/docs/{tag}")
async def docs_of_tag(request: Request, tag: Tag) -> Response:
    """Show the calls of one tag, with all that they take and give."""
    return _docs(request, tag)


def _docs(request: Request, tag: str) -> Response:
    app: FastAPI = request.app
    groups = _by_tag(app)
    if tag and tag not in groups:
        raise NotFound
    return page("docs.html", title=app.title, version=app.version, summary=app.summary, groups=groups, tag=tag)


def _by_tag(app: FastAPI) -> dict[str, list[dict[str, Any]]]:
    """Return every call by its tag, as an address has it, in the order in which they were written."""
    groups: dict[str, list[dict[str, Any]]] = getattr(app.state, "calls_by_tag", {})
    if not groups:
        for call in described_calls(app.openapi()):
            group = groups.setdefault(call["tag"].replace(" ", "-"), [])
            same = [other for other in group if other["gives"] == call["gives"] and other["answer"] == call["answer"]]
            # Said once a page: an app has sixty fields, and five calls answer with one.
            group.append({**call, "answers_like": same[0] if same and call["gives"] else None})
        app.state.calls_by_tag = groups
    return groups


def described_calls(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every call of the OpenAPI document with its fields spelled out, references followed, as a page shows it."""
    schemas = document["components"]["schemas"]
    for path, method, operation in _operations(document):
        yield _call(schemas, path, method, operation)


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def _call(schemas: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> dict[str, Any]:
    body = _media(operation.get("requestBody", {}))
    answer = _media(operation["responses"].get("200", {}))
    parameters = [
        (parameter["name"], "text", bool(parameter.get("required")), parameter.get("description", ""))
        for parameter in operation.get("parameters", ())
    ]
    return {
        "id": operation["operationId"],
        "tag": operation["tags"][0],
        "method": method.upper(),
        "path": path,
        "summary": operation.get("summary", ""),
        "description": operation.get("description", ""),
        "needs_key": bool(operation.get("security")),
        "takes_user_token": {"userToken": []} in operation.get("security", ()),
        "takes": [*parameters, *_fields(schemas, body.get("schema", {}))],
        "gives": list(_fields(schemas, answer.get("schema", {}))),
        "format": _format(operation.get("requestBody", {})),
        "request": _example(schemas, body),
        "answer": _example(schemas, answer),
        "errors": [(s, r["description"]) for s, r in operation["responses"].items() if not s.startswith("2")],
    }


def _format(part: dict[str, Any]) -> str:
    """Return the media type of a body, or nothing where there is none."""
    return next(iter(part.get("content", {})), "")


def _media(part: dict[str, Any]) -> dict[str, Any]:
    content = part.get("content", {})
    media: dict[str, Any] = content.get("application/json") or content.get("application/x-www-form-urlencoded", {})
    return media


def _example(schemas: dict[str, Any], media: dict[str, Any]) -> str:
    found = media.get("example") or next(iter(_resolved(schemas, media.get("schema", {})).get("examples", [])), None)
    return "" if found is None else json.dumps(found, indent=2)


def _fields(schemas: dict[str, Any], schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str, bool, str]]:
    """Yield name, type, whether it is required, and meaning; members of objects and of lists of objects follow them."""
    resolved = _resolved(schemas, schema)
    required = set(resolved.get("required", ()))
    for name, field in resolved.get("properties", {}).items():
        inner = _resolved(schemas, field)
        many = inner.get("type") == "array"
        item = _resolved(schemas, inner["items"]) if many and "items" in inner else inner
        kind = " | ".join(item.get("enum", ())) or str(item.get("type", "any"))
        text = field.get("description") or ("" if "properties" in inner else inner.get("description", ""))
        yield prefix + name, f"list of {kind}" if many else kind, name in required, text
        yield from _fields(schemas, item, f"{prefix}{name}{'[]' if many else ''}.")


def _resolved(schemas: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Follow references, and take what is not null of "this or null"."""
    if "$ref" in schema:
        return _resolved(schemas, schemas[re.sub(f"^{_REF}", "", schema["$ref"])])
    for choice in schema.get("anyOf", ()):
        if choice.get("type") != "null":
            return _resolved(schemas, choice)
    return schema
