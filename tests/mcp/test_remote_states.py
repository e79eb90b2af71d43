"""The one member that the gateway replaces in what a remote MCP server answers, wherever its pieces end."""

import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from evergrant.web.mcp.remote_states import HELD_BYTES, with_sealed_states

ASKED = json.dumps({"result": {"resultType": "input_required", "requestState": "theirs"}})
DATA = json.dumps({"result": {"structuredContent": {"requestState": "theirs"}, "requestState": "theirs"}})
STREAM = f": hello\n\nevent: message\r\ndata: {ASKED}\r\n\r\ndata: {DATA}\n\ndata:{ASKED}\n\n: theirs requestState\n"


@pytest.fixture(autouse=True)
def _seal(monkeypatch: pytest.MonkeyPatch) -> None:
    async def seal(*_: Any, **__: Any) -> str:
        return "ours"

    monkeypatch.setattr("evergrant.web.mcp.remote_states.seal", seal)


async def passed(*pieces: bytes, is_stream: bool) -> list[bytes]:
    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    nobody: Any = SimpleNamespace(principal=None)
    return [piece async for piece in with_sealed_states(nobody, nobody, "app", body(), is_stream=is_stream)]


@pytest.mark.parametrize("text", [ASKED, DATA, STREAM], ids=["asked", "data", "stream"])
async def test_a_state_is_sealed_and_nothing_else_wherever_pieces_end(text: str) -> None:
    whole = text.encode()
    for cut in range(len(whole)):
        came = b"".join(await passed(whole[:cut], whole[cut:], is_stream=text == STREAM)).decode()
        assert came == text.replace(ASKED, ASKED.replace("theirs", "ours")), cut


async def test_each_line_of_a_stream_goes_on_when_it_is_whole_and_a_long_one_unread() -> None:
    long = b"data: " + b"x" * HELD_BYTES
    came = await passed(b"data: 1\n", b"data: 2", b"\n", long, b"yz\ndata: 3\n\n", is_stream=True)
    assert [piece for piece in came if piece] == [b"data: 1\n", b"data: 2\n", long, b"yz\ndata: 3\n\n"]
