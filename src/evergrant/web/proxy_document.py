"""The proxy in the OpenAPI document: it is no route of the framework, and so is described here."""

from typing import Any

from evergrant.broker.calls.redirects import PROXY_PATH
from evergrant.broker.runtime.path_globs import METHODS

_TEXT = {"type": "string", "maxLength": 255, "pattern": "^[^\\x00-\\x1f]*$"}
_ID = {"type": "string", "maxLength": 64, "pattern": "^[A-Za-z0-9._~-]+$"}
_HEADERS: tuple[tuple[str, str, dict[str, Any], Any], ...] = (
    ("Evergrant-User", "Whose connection. Sessions and JWTs leave it out: they stand for one owner.", _TEXT, "alice"),
    ("Evergrant-Tenant", "The tenant's own connection; beside a user, the user's within this tenant.", _TEXT, "acme"),
    ("Evergrant-External-Identifier", "Which of the owner's accounts, where there are several.", _TEXT, "work"),
    (
        "Evergrant-Scopes",
        "The connection has all of these, separated by spaces.",
        {"type": "string", "maxLength": 8000, "pattern": "^[!-~]+( +[!-~]+)*$"},
        "openid contacts.readonly",
    ),
    ("Evergrant-Base", "One of the app's further bases, by name. No header names a host.", _ID, "uploads"),
    (
        "Evergrant-Retry",
        "How often a 429 or 503 that states a time is waited for and repeated, where that is safe.",
        {"type": "integer", "minimum": 0, "maximum": 3, "default": 0},
        2,
    ),
    (
        "Evergrant-Max-Wait",
        "How many seconds that may take in all.",
        {"type": "number", "minimum": 0, "maximum": 20, "default": 20},
        10,
    ),
    (
        "Evergrant-Timeout",
        "How many seconds the head of the answer may take.",
        {"type": "number", "minimum": 1, "maximum": 300, "default": 60},
        30,
    ),
    ("Evergrant-Connect", "`1`: with a 424, also begin a connect trip.", {"type": "string", "enum": ["1"]}, "1"),
    ("Evergrant-Approval", "The id of an approval for exactly this request.", _ID, "Zk3v9QmR2xTq7LwA1bNc4e"),
)
_ERRORS = {
    400: "The path, a header or the framing cannot be passed on: `details.fields` says which.",
    401: "No or wrong credential.",
    403: "The session, a policy or the app forbids this call (`details.rule`), its approval was refused, or a session "
    "has used its calls up.",
    404: "There is no such app, or nobody knows where its API is.",
    409: "Several accounts match, and none was named: `details.accounts` lists them.",
    413: "The body is larger than `EVERGRANT_CALL_MOST_BYTES`.",
    424: "Nobody has connected this app for this owner with these scopes, or the connection is dead.",
    428: "The owner approves this very request first: `details.approvalId`, `approvalUrl`, `expiresAt`.",
    429: "Too many requests, or calls in flight. Obey `Retry-After` (seconds).",
    502: "The API's answer cannot be used, or its address may not be called.",
    503: "The API was not reached and nothing was sent: repeat it after `Retry-After` (seconds).",
    504: "The call was sent and no answer came: repeat only what is idempotent.",
}
_DESCRIPTION = (
    "The provider's path and query stand behind the app's id, byte for byte. The answer is the provider's own, with "
    "`Evergrant-Source: provider`; those below are evergrant's, with `Evergrant-Source: evergrant`."
)


def proxy_paths() -> dict[str, Any]:
    """Return the path of the proxy as the OpenAPI document has it: one entry, for every method."""
    return {f"{PROXY_PATH}{{appId}}/{{path}}": {method.lower(): _operation(method) for method in METHODS}}


def _operation(method: str) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
    anything = {"application/json": {"schema": {}, "example": {"whatever": "the API takes and gives"}}}
    where = [
        {
            "name": "appId",
            "in": "path",
            "required": True,
            "description": "The app.",
            "schema": _ID,
            "example": "google-contacts",
        },
        {
            "name": "path",
            "in": "path",
            "required": True,
            "description": "The path below the API's base, with its slashes.",
            "schema": {"type": "string", "maxLength": 8000, "pattern": "^[!$-;=@-\\[\\]_a-z~]*$"},
            "example": "v1/people/me",
        },
    ]
    ours = [
        {"name": name, "in": "header", "required": False, "description": text, "schema": schema, "example": one}
        for name, text, schema, one in _HEADERS
    ]
    answers = {str(status): {"description": meaning, "content": error} for status, meaning in _ERRORS.items()}
    operation: dict[str, Any] = {
        "tags": ["proxy"],
        "summary": f"Call an API with {method}",
        "description": _DESCRIPTION,
        "operationId": f"proxy{method.capitalize()}",
        "parameters": [*where, *ours],
        "responses": {
            "200": {"description": "Whatever the provider answers, with its status.", "content": anything},
            **answers,
        },
        "security": [{"managementKey": []}, {"userToken": []}],
    }
    if method not in ("GET", "HEAD"):
        operation["requestBody"] = {"content": anything}
    return operation
