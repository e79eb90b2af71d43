"""The Python SDK 2.x: plays a plan against an MCP server, and prints what came of each step, as JSON lines.

Takes the plan as its argument. The person is an address that is told each link, and says what they did.
"""

import asyncio
import json
import sys
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp.types import ElicitResult


async def main(plan: dict[str, Any]) -> None:
    """Play the plan."""

    async def elicit(_context: Any, params: Any) -> ElicitResult:
        async with httpx2.AsyncClient(timeout=60, trust_env=False) as person:
            answer = await person.get(plan["person"], params={"url": params.url})
        return ElicitResult(action=answer.json()["action"])

    headers = {"Authorization": f"Bearer {plan['key']}"}
    async with httpx2.AsyncClient(headers=headers, timeout=60, trust_env=False) as http:
        transport = streamable_http_client(plan["url"], http_client=http)
        callback = elicit if plan["opensLinks"] else None
        async with Client(transport, mode=plan["mode"], elicitation_callback=callback) as client:
            tools = await client.list_tools()
            said({"tools": [tool.name for tool in tools.tools]})
            for name, arguments in plan["calls"]:
                try:
                    result = await client.call_tool(name, arguments)
                except MCPError as error:
                    said({"error": {"code": error.code, "message": error.message, "data": error.data}})
                else:
                    said(
                        {"isError": result.is_error, "data": result.structured_content, "text": result.content[0].text}
                    )


def said(line: dict[str, Any]) -> None:
    """Print one line."""
    sys.stdout.write(json.dumps(line) + "\n")


asyncio.run(main(json.loads(sys.argv[1])))
