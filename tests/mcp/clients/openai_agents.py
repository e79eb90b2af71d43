"""The OpenAI Agents SDK's MCP adapter: lists the tools, makes one call, and prints what a model would read."""

import asyncio
import json
import sys
from typing import Any

from agents.mcp import MCPServerStreamableHttp


async def main(plan: dict[str, Any]) -> None:
    """Play the plan."""
    headers = {"Authorization": f"Bearer {plan['key']}"}
    async with MCPServerStreamableHttp(params={"url": plan["url"], "headers": headers}) as server:
        tools = await server.list_tools()
        sys.stdout.write(json.dumps({"tools": [tool.name for tool in tools]}) + "\n")
        for name, arguments in plan["calls"]:
            result = await server.call_tool(name, arguments)
            sys.stdout.write(json.dumps({"said": result.content[0].text}) + "\n")


asyncio.run(main(json.loads(sys.argv[1])))
