"""The examples for agents in the documentation: what they are written in, and what they name."""

import ast
import importlib
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.infra.docs_reader import BLOCKS

TRIED = {
    "agents": {"Agent", "HostedMCPTool"},
    "agents.mcp": {"MCPServerStreamableHttp"},
    "anthropic": {"Anthropic"},
    "crewai": {"Agent"},
    "crewai.mcp": {"MCPServerHTTP"},
    "langchain_mcp_adapters.client": {"MultiServerMCPClient"},
    "llama_index.tools.mcp": {"BasicMCPClient", "McpToolSpec"},
}
"""What the examples take of packages that are not installed here. Versions, and what was tried, stand below them in
the documentation: run an example again before you change this."""
PYTHON = {block.start: block.text for block in BLOCKS if block.page == "agents.md" and block.language == "python"}
JAVASCRIPT = {block.start: block.text for block in BLOCKS if block.page == "agents.md" and block.language == "js"}


@pytest.mark.parametrize("start", PYTHON)
def test_a_python_example_compiles_and_names_what_is_there(start: str) -> None:
    compile(PYTHON[start], start, "exec")
    for node in ast.walk(ast.parse(PYTHON[start])):
        if isinstance(node, ast.ImportFrom):
            module, names = str(node.module), {alias.name for alias in node.names}
            if module in TRIED:
                assert names <= TRIED[module]
            else:
                assert names <= set(dir(importlib.import_module(module)))


def test_the_examples_in_javascript_are_modules_that_parse(tmp_path: Path) -> None:
    node = shutil.which("node")
    assert node, "Install Node.js, so that the examples in JavaScript can be read."
    assert JAVASCRIPT
    for number, text in enumerate(JAVASCRIPT.values()):
        module = tmp_path / f"{number}.mjs"
        module.write_text(text)
        read = subprocess.run([node, "--check", str(module)], capture_output=True, text=True)
        assert read.returncode == 0, read.stderr


def test_the_example_for_providers_sdks_makes_each_for_the_proxy() -> None:
    (text,) = [text for start, text in PYTHON.items() if start == "agents.md: import notion_client"]
    names: dict[str, object] = {}
    exec(text, names)
    urls = {app: f"http://127.0.0.1:9/v1/proxy/{app}" for app in ("github", "slack", "stripe", "notion")}
    hub, slack, _, notion = names["sdks"](urls, "evs_key")  # type: ignore[operator] # it was read from a page
    assert hub.requester.base_url == urls["github"]
    assert slack.base_url == f"{urls['slack']}/"
    assert str(notion.client.base_url) == f"{urls['notion']}/v1/"
    hub.close()
    notion.close()
