"""Results of tools: the same as data and as text, because some clients give a model only the text."""

import json
from collections.abc import Mapping
from typing import Any

from mcp import types

from evergrant.errors import EvergrantError
from evergrant.logs import request_id


def succeeded(data: Mapping[str, Any], *, is_error: bool = False) -> types.CallToolResult:
    """Return what a tool has found. A provider's refusal is an error with the provider's words in it."""
    return _result(json.dumps(data, ensure_ascii=False), data, is_error=is_error)


def failed(error: EvergrantError) -> types.CallToolResult:
    """Return an error of ours, which says what to do about it."""
    data: dict[str, Any] = {"source": "evergrant", "code": error.code, "message": error.message}
    if error.details:
        data["details"] = error.details
    if error.retry_after is not None:
        data["retry_after"] = error.retry_after
    return _result(json.dumps(data, ensure_ascii=False), data | {"request_id": request_id.get()}, is_error=True)


def told(text: str, data: Mapping[str, Any]) -> types.CallToolResult:
    """Return what a model is to tell its user, with the same as data. It is an error: nothing was done yet."""
    return _result(text, data, is_error=True)


def _result(text: str, data: Mapping[str, Any], *, is_error: bool) -> types.CallToolResult:
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=text)], structured_content=dict(data), is_error=is_error
    )
