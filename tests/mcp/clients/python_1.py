"""The Python SDK 1.x: as `python_2.py`."""

import asyncio
import json
import sys
from typing import Any

import httpx
from mcp import ClientSession, McpError, types
from mcp.client.streamable_http import streamablehttp_client


async def main(plan: dict[str, Any]) -> None:
    """Play the plan."""

    async def elicit(_context: Any, params: Any) -> types.ElicitResult:
        async with httpx.AsyncClient(timeout=60, trust_env=False) as person:
            answer = await person.get(plan["person"], params={"url": params.url})
        return types.ElicitResult(action=answer.json()["action"])

    headers = {"Authorization": f"Bearer {plan['key']}"}
    callback = elicit if plan["opensLinks"] else None
    async with (
        streamablehttp_client(plan["url"], headers=headers) as (read, write, _),
        ClientSession(read, write, elicitation_callback=callback) as client,
    ):
        await client.initialize()
        tools = await client.list_tools()
        said({"tools": [tool.name for tool in tools.tools]})
        for name, arguments in plan["calls"]:
            try:
                result = await client.call_tool(name, arguments)
            except McpError as error:
                said({"error": error.error.model_dump()})
            else:
                said({"isError": result.isError, "data": result.structuredContent, "text": result.content[0].text})


def said(line: dict[str, Any]) -> None:
    """Print one line."""
    sys.stdout.write(json.dumps(line) + "\n")


asyncio.run(main(json.loads(sys.argv[1])))
