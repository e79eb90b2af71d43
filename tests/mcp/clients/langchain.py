"""LangChain's MCP adapters: lists the tools, makes one call, and prints what a model would read."""

import asyncio
import json
import sys
from typing import Any

from langchain_mcp_adapters.client import MultiServerMCPClient


async def main(plan: dict[str, Any]) -> None:
    """Play the plan."""
    headers = {"Authorization": f"Bearer {plan['key']}"}
    client = MultiServerMCPClient(
        {"evergrant": {"transport": "streamable_http", "url": plan["url"], "headers": headers}}
    )
    tools = {tool.name: tool for tool in await client.get_tools()}
    sys.stdout.write(json.dumps({"tools": list(tools)}) + "\n")
    for name, arguments in plan["calls"]:
        try:
            said = str(await tools[name].ainvoke(arguments))
        except Exception as error:  # noqa: BLE001 - the adapter raises a tool's error in a class of its own
            said = str(error)
        sys.stdout.write(json.dumps({"said": said}) + "\n")


asyncio.run(main(json.loads(sys.argv[1])))
