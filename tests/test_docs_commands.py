"""The pages in docs/: every block of commands or code is run as it stands, or listed with the reason why not."""

import logging
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from evergrant import __version__
from evergrant.settings import Settings
from tests.infra.docs_reader import BLOCKS, Block, Reader
from tests.infra.installation import (
    Backend,
    Installation,
    installation,
    new_project,
)
from tests.infra.issuer import Issuer
from tests.infra.mcp_server import McpServer, mcp_server
from tests.infra.receiver import Receiver
from tests.infra.scripted import serving
from tests.infra.waiting import PATIENCE

RUN = ("sh", "python", "js")
SHOWN = ("html", "json", "toml", "yaml", "text")
NPM_PACKAGES = ("@descope/node-sdk", "standardwebhooks", "express")


NOT_RUN = {
    "agents.md: import json": "tests/trips/test_mcp.py runs it with an MCP server",
    "agents.md: import notion_client": "tests/clients/test_snippets.py runs it",
    "agents.md: from evergrant_agents import App, ApprovalRequired, Client, ConnectionRequired, create_session": (
        "needs a connection at an API; tests/clients/test_agents_client.py has all of it"
    ),
    "agents.md: from langchain_mcp_adapters.client import MultiServerMCPClient": "packages that exclude each other: "
    "tests/clients/test_snippets.py holds their names",
    "agents.md: from agents import Agent": "the same",
    "agents.md: from agents import HostedMCPTool": "the same",
    "agents.md: from anthropic import Anthropic": "the same",
    "agents.md: from llama_index.tools.mcp import BasicMCPClient, McpToolSpec": "the same",
    "agents.md: from crewai import Agent": "the same",
    'agents.md: import { createMCPClient } from "@ai-sdk/mcp";': "the same",
    'backup.md: pg_dump --format=custom --file=evergrant.dump "$EVERGRANT_DATABASE_URL"': "programs of the databases",
    "backup.md: evergrant restore evergrant-backup.db": "a server runs; tests/attacks/test_restored_backups.py does it",
    'backup.md: pg_restore --clean --if-exists --dbname="$EVERGRANT_DATABASE_URL" evergrant.dump': "the same",
    "first-run.md: evergrant serve": "runs until it is stopped; tests/cli/test_first_run.py starts it",
    "branding.md: base64 < logo.png | tr -d '\\n' > logo.txt": "takes a picture; tests/web/test_branding.py sends some",
    "connections.md: evergrant connections add machines --tenant acme --field client_id=acme-client": (
        "asks for the secret; tests/cli/test_templates.py answers"
    ),
    'connected-accounts.md: const accounts = document.querySelector("evergrant-accounts");': (
        "tests/trips/test_accounts_browser.py has the elements in a browser"
    ),
    "tracing.md: pip install 'evergrant[otel]'": "a released package; tests/test_tracing.py has the server's traces",
    "deletion.md: evergrant projects delete P_FROM_INIT": "asks for the id; tests/attacks/test_shredding.py does it",
    "deletion.md: evergrant projects delete P_FROM_INIT --revoke-first --within 48": "the same",
    "deploy.md: cp .env.example .env": "needs a container engine; tests/test_house.py reads the compose file",
    "deploy.md: docker compose run --rm evergrant doctor": "the same; tests/test_house.py knows every verb and option",
    "deploy.md: docker compose build": "needs a container engine",
    "deploy.md: docker compose --profile proxy --profile monitoring up": "the same; tests/deploy reads the file",
    "deploy.md: python3 -m venv /opt/evergrant": "installs into the machine; tests/deploy has systemd read the units",
    "deploy.md: systemctl daemon-reload": "needs a machine that systemd runs",
    "deploy.md: sudo --user=evergrant sh -ac '. /etc/evergrant/evergrant.env; exec \"$@\"' -"
    " /opt/evergrant/bin/evergrant doctor": "the same",
    "development.md: export EVERGRANT_DATA_DIR=/tmp/evergrant-migration": "writes a migration into the checkout",
    "failover.md: .venv/bin/python benchmarks/failover.py killed": "tests/faults/test_failover.py does this",
    "upgrades.md: .venv/bin/python benchmarks/upgrade.py": "tests/faults/test_upgrades.py does this",
    "failover.md: patronictl -c /etc/patroni.yml list": "needs a cluster of servers",
    "faults.md: make test": "runs this very test",
    "scale.md: .venv/bin/python -m pytest -q tests/faults/test_replicas.py": "the tests run it anyway",
    "scale.md: .venv/bin/python -m pytest -q tests/faults/test_poolers.py": "the same",
    "scale.md: .venv/bin/python -m pytest -q tests/db/test_read_replica.py": "the same",
    "scale.md: python benchmarks/scale.py": "tests/test_scale.py compares what it prints",
    "journal.md: EVERGRANT_DATA_DIR=/mnt/old-replica evergrant refresher": "runs until it is stopped",
    "journal.md: python3 -m json.tool evergrant-data/journal/0123456789abcdef.json": "only outages leave such files",
    f"kubernetes.md:    docker build --tag registry.example.com/evergrant:{__version__} .": "needs a container engine",
    "kubernetes.md:    kubectl create namespace evergrant": "needs a cluster; tests/deploy renders the chart",
    "kubernetes.md:    helm upgrade --install --namespace=evergrant --values=values.yaml --wait evergrant"
    " ./deploy/helm/evergrant": "the same",
    "keys.md: evergrant keyring rotate": "waits a minute; tests/broker/test_key_rotation.py rotates without the wait",
    "keys.md: bao secrets enable transit": "tests/crypto/test_key_services.py has an OpenBao with this policy",
    "mcp.md: import asyncio": "defines what an agent runs; tests/mcp/ runs such clients",
    'mcp.md: import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";': "the same",
    "migrate-from-descope.md: import itertools": "tests/sdk/test_migration.py runs it between two installations",
    "monitoring.md: evergrant refresher --metrics-host 0.0.0.0 --metrics-port 9464": "runs until it is stopped;"
    " tests/cli/test_serve.py does so",
    "performance.md: make bench": "takes minutes",
    "performance.md: python benchmarks/console.py": "takes minutes",
    "performance.md: python benchmarks/flat.py": "takes an hour",
    "performance.md: python benchmarks/proxy.py": "takes minutes",
    "performance.md: python benchmarks/sweep.py": "takes minutes",
    "performance.md: python benchmarks/rotate.py": "takes minutes",
    "performance.md: python benchmarks/shred.py": "takes minutes",
    'sdks.md: curl -sS "$EVERGRANT/openapi.json" -o openapi.json': "tests/web/test_generated_client.py does it",
    "sdks.md: from evergrant_api.api.tokens import fetch_latest_user_token": "the same",
    "soak.md: make soak": "takes ten minutes",
    'users.md: const sdk = descopeSdk({ projectId: "P_FROM_INIT", baseUrl: "https://evergrant.example.com" });': (
        "tests/trips/test_browser_sdk.py makes this call in a browser"
    ),
}
PAGES = sorted({block.page for block in BLOCKS if block.language in RUN and block.start not in NOT_RUN})
GIVES_TOKENS = ("fetch.md", "sdks.md", "users.md")
"""On these pages, every language prints an access token that the provider accepts."""


def test_every_block_says_its_language() -> None:
    assert {block.language for block in BLOCKS} <= {*RUN, *SHOWN}


def test_what_is_not_run_still_stands_on_its_page() -> None:
    assert NOT_RUN.keys() <= {block.start for block in BLOCKS if block.language in RUN}


@pytest.fixture(scope="module")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the published packages that the pages name can be imported."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.fail("There is no npm: install Node.js, so that the examples in JavaScript can be run.")
    folder = tmp_path_factory.mktemp("node")
    install = [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefer-offline", *NPM_PACKAGES]
    installed = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=PATIENCE)
    assert installed.returncode == 0, f"npm could not fetch {NPM_PACKAGES}:\n{installed.stderr}"
    return folder


@pytest.fixture(scope="module")
def idp() -> Iterator[Issuer]:
    with serving(Issuer()) as running:
        yield running


@pytest.fixture(scope="module")
def mcp() -> Iterator[McpServer]:
    with mcp_server() as running:
        yield running


@pytest.fixture
def hooks() -> Iterator[Receiver]:
    with serving(Receiver()) as running:
        yield running


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One kind of database is enough: the pages' calls are tested on both elsewhere."""
    return sqlite_url


@pytest.fixture(autouse=True)
def _log_handlers_as_they_were() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_work(
    page: str,
    settings: Settings,
    node_folder: Path,
    idp: Issuer,
    mcp: McpServer,
    hooks: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)  # where commands leave files
    with installation(settings) as here:
        for language in RUN:
            blocks = [block for block in BLOCKS if block.page == page and block.language == language]
            blocks = [block for block in blocks if block.start not in NOT_RUN]
            if blocks:
                # The commands are run first, while there is one project: they need not name it.
                backend = here.backend if language == "sh" else another_project(here)
                reader = Reader(here, backend, idp, node_folder)
                reader.substitutions["https://notes.example.com/mcp"] = mcp.url
                reader.substitutions["https://api.example.com/hooks"] = hooks.url
                follow(reader, blocks, monkeypatch)


def another_project(here: Installation) -> Backend:
    made = new_project(here.settings)
    return Backend(here.url, made.project_id, made.management_key)


def follow(reader: Reader, blocks: list[Block], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the blocks of a page in one language, in their order."""
    page = blocks[0].page
    for name, value in reader.environment.items():
        monkeypatch.setenv(name, value)
    reader.prepare(page)
    printed = ""
    for block in blocks:
        if "evergrant issuers add" not in block.text:
            reader.trust()
        said = reader.run(block)
        assert "errorCode" not in said, f"{block.page}\n{block.text}\n{said}"
        assert said or not re.search(r"print\(|console\.log", block.text), f"{block.text}\nprinted nothing"
        for link in re.findall(rf"{re.escape(reader.here.url)}/connect\S*?(?=[\"\s])", said):
            reader.go_through(link)
        printed += said
    if page in GIVES_TOKENS:
        assert any(token in printed for token in reader.here.provider.state.access_tokens), printed
    reader.leave()
