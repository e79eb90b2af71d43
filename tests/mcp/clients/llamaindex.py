"""LlamaIndex's MCP tools: as `langchain.py`."""

import asyncio
import json
import sys
from typing import Any

from llama_index.tools.mcp import BasicMCPClient, McpToolSpec


async def main(plan: dict[str, Any]) -> None:
    """Play the plan."""
    client = BasicMCPClient(plan["url"], headers={"Authorization": f"Bearer {plan['key']}"})
    tools = {tool.metadata.name: tool for tool in await McpToolSpec(client=client).to_tool_list_async()}
    sys.stdout.write(json.dumps({"tools": list(tools)}) + "\n")
    for name, arguments in plan["calls"]:
        said = str(await tools[name].acall(**arguments))
        sys.stdout.write(json.dumps({"said": said}) + "\n")


asyncio.run(main(json.loads(sys.argv[1])))
