"""What a remote MCP server has its clients carry (`requestState`), sealed with who got it: nobody resumes another's.

Only that member of a message is replaced. What is too long to be looked into, or is spread over several lines of a
stream, goes on as it came; its state then is none of ours, and does not get back to the server.
"""

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

from evergrant import clock
from evergrant.broker.runtime.broker import Broker
from evergrant.errors import MalformedRequest, NotFound
from evergrant.web.mcp.caller import Caller
from evergrant.web.mcp.seals import opened, seal

STATE = "requestState"
STATE_HOURS = 24
"""How long a state can be brought back; the server has a time of its own."""
HELD_BYTES = 256 * 1024
"""How much of one message is held back until it is whole."""
_STARTS = (b"", b"data:")
"""What stands before a message: in JSON nothing, in a stream the name of its field."""

Sealing = Callable[[bytes], Awaitable[bytes]]


async def with_own_state(broker: Broker, caller: Caller, app_id: str, message: Mapping[str, Any], body: bytes) -> bytes:
    """Return a request's body with the state that the server gave this caller, in the place of the sealed one.

    Raises:
        MalformedRequest: the state is somebody else's, too old or not ours; or it could be read in two ways.
    """
    params = message.get("params")
    found = [name for name in params if name.casefold() == STATE.casefold()] if isinstance(params, dict) else []
    if not isinstance(params, dict) or not found:
        return body
    text, said = params.get(STATE), None
    if found == [STATE] and isinstance(text, str) and text.isascii() and body.count(_quoted(text)) == 1:
        with contextlib.suppress(NotFound):
            said = await opened(broker, caller.principal, "upstream_state", text, now=clock.now(), bound=(app_id,))
    if not isinstance(text, str) or said is None:
        raise MalformedRequest.of((f"params.{STATE}", "this is not for this call: call again without it"))
    return body.replace(_quoted(text), json.dumps(said["state"]).encode())


def _quoted(text: str) -> bytes:
    return f'"{text}"'.encode()


async def with_sealed_states(
    broker: Broker, caller: Caller, app_id: str, body: AsyncIterator[bytes], *, is_stream: bool
) -> AsyncIterator[bytes]:
    """Yield an answer, JSON or a stream of events, with each state sealed. Each line goes on as soon as it is whole."""

    async def sealed(line: bytes) -> bytes:
        return await _sealed_in(broker, caller, app_id, line) if STATE.encode() in line else line

    held, is_too_long = bytearray(), False
    async for piece in body:
        end = 1 + max(piece.rfind(b"\n"), piece.rfind(b"\r")) if is_stream else 0
        if end:
            first, *more = bytes(held + piece[:end]).splitlines(keepends=True)
            yield b"".join([first if is_too_long else await sealed(first), *[await sealed(line) for line in more]])
            held, is_too_long = bytearray(), False
        rest = piece[end:]
        if is_too_long:
            yield rest
            continue
        held += rest
        if len(held) > HELD_BYTES:
            yield bytes(held)
            held, is_too_long = bytearray(), True
    if held:
        yield await sealed(bytes(held))


async def _sealed_in(broker: Broker, caller: Caller, app_id: str, line: bytes) -> bytes:
    start, brace, rest = line.partition(b"{")
    try:
        message = json.loads(brace + rest) if start.strip() in _STARTS else {}
    except (ValueError, RecursionError):
        return line
    result = message.get("result")
    if not isinstance(result, dict) or result.get("resultType") != "input_required" or STATE not in result:
        return line
    until = clock.now() + timedelta(hours=STATE_HOURS)
    said = {"state": result[STATE]}
    result[STATE] = await seal(broker, caller.principal, "upstream_state", said, until=until, bound=(app_id,))
    return start + json.dumps(message).encode() + line[len(line.rstrip(b"\r\n")) :]
