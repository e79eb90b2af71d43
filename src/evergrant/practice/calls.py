"""One HTTP call as a value: shown as the curl that makes it, and made as shown."""

import json
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2


@dataclass(frozen=True, slots=True)
class Call:
    """A call with a bearer credential and, for POST, a JSON body."""

    method: str
    url: str
    bearer: str
    body: Mapping[str, Any] | None = None

    def curl(self) -> str:
        """Return the command, ready to paste into a POSIX shell."""
        parts = [f"curl {shlex.quote(self.url)}", f"-H {shlex.quote(f'Authorization: Bearer {self.bearer}')}"]
        if self.body is not None:
            body = json.dumps(self.body, indent=2).replace("\n", "\n  ")
            parts += [
                "-H 'Content-Type: application/json'",
                f"-d {shlex.quote(body)}",
            ]
        return " \\\n  ".join(parts)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a call.

    Attributes:
        status: the HTTP status, or 0 when nothing answered.
        text: the body, indented when it is JSON.
        fields: the body when it is a JSON object, else empty.
        milliseconds: how long it took.
    """

    status: int
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    milliseconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the status says success."""
        return 200 <= self.status < 300


async def make(call: Call, http: httpx2.AsyncClient) -> Answer:
    """Make the call. Nothing is raised: a server that is away is an answer with status 0."""
    began = time.perf_counter()
    try:
        response = await http.request(
            call.method,
            call.url,
            headers={"Authorization": f"Bearer {call.bearer}"},
            json=call.body,
            timeout=30,
        )
    except httpx2.HTTPError as error:
        return Answer(0, f"{type(error).__name__}: {call.url} does not answer.")
    milliseconds = (time.perf_counter() - began) * 1000
    try:
        parsed = response.json()
    except ValueError:
        return Answer(response.status_code, response.text[:2000], {}, milliseconds)
    fields = parsed if isinstance(parsed, dict) else {}
    return Answer(response.status_code, json.dumps(parsed, indent=2), fields, milliseconds)
