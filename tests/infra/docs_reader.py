"""Somebody who follows the pages in docs/: runs their blocks of commands and code as they stand there."""

import contextlib
import gc
import io
import json
import operator
import os
import re
import shlex
import subprocess
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from click.testing import CliRunner
from standardwebhooks import Webhook

from evergrant.cli import cli
from tests.infra.installation import (
    CLIENT_ID,
    CLIENT_SECRET,
    Backend,
    Installation,
)
from tests.infra.issuer import AUDIENCE, Issuer
from tests.infra.serving import environment_of
from tests.infra.waiting import PATIENCE

DOCS = Path(__file__).parents[2] / "docs"
SCOPE = "contacts.readonly"


class Block(NamedTuple):
    """A fenced block: its page, its language and its text."""

    page: str
    language: str
    text: str

    @property
    def start(self) -> str:
        """The page and the first line, by which a block is listed."""
        return f"{self.page}: {self.text.partition(chr(10))[0]}"


BLOCKS = [
    Block(str(page.relative_to(DOCS)), *match)
    for page in sorted(DOCS.rglob("*.md"))
    for match in re.findall(r"^ *```(\w*)\n(.*?)^ *```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)
]

SETTING_UP = {block.language: block.text for block in reversed(BLOCKS) if block.page == "sdks.md"}
"""What all examples begin with: the first block of each language on the page of the SDKs."""


class Reader:
    """Somebody who follows a page in one language, in a project of their own."""

    def __init__(self, here: Installation, backend: Backend, idp: Issuer, node_folder: Path) -> None:
        self.here = here
        self.backend = backend
        self.idp = idp
        self.node_folder = node_folder
        self.python: dict[str, Any] = {"__name__": __name__}  # as of a module: Flask looks for its file
        self.substitutions = {
            "https://evergrant.example.com": here.url,
            "https://accounts.google.com": here.provider.url,
            "https://login.example.com": idp.url,
            "https://www.googleapis.com/auth/contacts.readonly": SCOPE,
            "1234.apps.googleusercontent.com": CLIENT_ID,
            "GOCSPX-from-the-provider": CLIENT_SECRET.replace("'", "'\\''"),
            "P_FROM_INIT": backend.project_id,
            "/v1/people/me/connections": "/contacts",
        }
        self.environment = {
            "EVERGRANT": here.url,
            "PROJECT_ID": backend.project_id,
            "MANAGEMENT_KEY": backend.management_key,
            "CLIENT_SECRET": CLIENT_SECRET,
            "USERS_ACCESS_TOKEN": idp.access("alice"),
            "AGENTS_ACCESS_TOKEN": idp.session("planner"),
            "EVERGRANT_WEBHOOK_SECRET": "whsec_" + "c2VjcmV0" * 4,
        }

    def prepare(self, page: str) -> None:
        """Do what the reader of a page has done before."""
        self._manage("PUT", "managementkey", {"name": "reader", "permissions": ["tokens:fetch"]})
        if page == "apps.md":
            return
        google = {"id": "google-contacts", "name": "Google Contacts", "defaultScopes": [SCOPE]}
        google["apiBaseUrl"] = f"{self.here.provider.url}/api"
        self.backend.create_app({**self.here.provider.registration, **google})
        self.backend.create_app({"id": "openai", "name": "OpenAI", "appType": "apikey"})
        machines = {"id": "machines", "name": "Machines", "appType": "client_credentials"}
        self.backend.create_app({**machines, "tokenUrl": f"{self.here.provider.url}/token"})
        self.go_through(self.backend.connect_url("alice", appId="google-contacts"))
        if page == "connect.md":
            changed = {**self.here.provider.registration, **google, "requireConfirmation": True}
            assert self.backend.post("app/update", {"app": changed}).status_code == 200

    def trust(self) -> None:
        """Trust the issuer of the user's token, and have no policies, whatever the page did before."""
        if not self._manage("GET", "trustedissuer")["trustedIssuers"]:
            self._manage("POST", "trustedissuer", {"issuer": self.idp.url, "audience": AUDIENCE})
        for policy in self._manage("GET", "outbound/policies")["policies"]:
            self._manage("DELETE", f"outbound/policies?id={policy['id']}")

    def leave(self) -> None:
        """End what would be in the way of the next reader: two projects that trust one issuer, and open connections."""
        for trusted in self._manage("GET", "trustedissuer")["trustedIssuers"]:
            self._manage("DELETE", f"trustedissuer?id={trusted['id']}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # the SDK's client cannot be closed
            self.python.clear()
            gc.collect()
        if self.backend is not self.here.backend:
            self.backend.http.close()

    def go_through(self, link: str) -> None:
        """Be the user who opens a connect link, and remember what comes back."""
        browser = self.here.browser()
        came_back = browser.connect(link)
        assert came_back["outboundStatus"] == "connected", came_back
        self.substitutions["FROM_THE_REDIRECT"] = came_back.get("confirmation", "")

    def _manage(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.backend.http.request(method, f"/v1/mgmt/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def meant(self, text: str) -> str:
        """Return a block with this installation's addresses, and ids of things that are there now."""
        by_name = operator.itemgetter("name")  # "agents" of the page, else "reader", and never the key of `init`
        newest: dict[str, Callable[[], str]] = {
            "KEY_ID": lambda: min(self._manage("GET", "managementkey/search")["keys"], key=by_name)["id"],
            "ISSUER_ID": lambda: self._manage("GET", "trustedissuer")["trustedIssuers"][-1]["id"],
            "POLICY_ID": lambda: self._manage("GET", "outbound/policies")["policies"][-1]["id"],
            "WEBHOOK_ID": lambda: self._manage("GET", "outbound/webhooks")["webhooks"][-1]["id"],
            "DELIVERY_ID": lambda: self._manage("GET", "outbound/webhook/deliveries")["deliveries"][0]["id"],
        }
        for written, meant in self.substitutions.items():
            text = text.replace(written, meant)
        for written, find in newest.items():
            if re.search(rf"\b{written}\b", text):
                text = re.sub(rf"\b{written}\b", find(), text)
        return text

    def run(self, block: Block) -> str:
        """Run a block and return what it printed. The key of a session that it mints is `SESSION_KEY` from then on."""
        said = self._run(block)
        if key := re.search(r'"(evs_\w+)"', said):
            self.environment["SESSION_KEY"] = key[1]
        return said

    def _run(self, block: Block) -> str:
        if block.language == "python":
            return self._python(block)
        if block.language == "js":
            return self._node(block)
        if block.text.startswith("evergrant "):
            return "".join(self._evergrant(line) for line in block.text.replace("\\\n", " ").splitlines())
        text = self.meant(block.text).replace("curl -sS", "curl -sS --fail-with-body")
        return self._process(["bash", "-euo", "pipefail", "-c", text], block)

    def _evergrant(self, line: str) -> str:
        command = re.split(" >>? ", self.meant(line))[0]
        done = CliRunner().invoke(cli, shlex.split(command)[1:], env=environment_of(self.here.settings))
        assert done.exit_code == 0, f"{line}\n{done.output}{done.exception!r}"
        return done.output

    def _python(self, block: Block) -> str:
        if "client" not in self.python and block.text != SETTING_UP["python"]:
            exec(self.meant(SETTING_UP["python"]), self.python)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(self.meant(block.text), block.page, "exec"), self.python)
            if block.page == "webhooks.md":
                receive(self.python)
        return printed.getvalue()

    def _node(self, block: Block) -> str:
        setting_up = "" if block.text == SETTING_UP["js"] else SETTING_UP["js"]
        script = self.node_folder / "page.mjs"
        script.write_text(self.meant(setting_up + block.text) + (RECEIVE if block.page == "webhooks.md" else ""))
        return self._process(["node", script.name], block)

    def _process(self, command: list[str], block: Block) -> str:
        environment = {**os.environ, **self.environment}
        done = subprocess.run(
            command, cwd=self.node_folder, env=environment, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, f"{block.page}\n{block.text}\n{done.stdout}{done.stderr}"
        return done.stdout


def receive(names: dict[str, Any]) -> None:
    """Send the Flask receiver of the page a signed message, and one that is not."""
    asked: list[tuple[str, str]] = []
    names["ask_to_connect_again"] = lambda *whose: asked.append(whose)
    body, now = json.dumps(DEAD), datetime.now(UTC)
    signature = Webhook(os.environ["EVERGRANT_WEBHOOK_SECRET"]).sign("msg_1", now, body)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }
    http = names["app"].test_client()
    assert http.post("/hooks/evergrant", data=body, headers=headers).status_code == 204
    assert http.post("/hooks/evergrant", data=body + " ", headers=headers).status_code == 400
    assert asked == [("alice", "google-contacts")]


DEAD = {"type": "grant.reauthorization_required", "data": {"userId": "alice", "appId": "google-contacts"}}
RECEIVE = """
import assert from "node:assert";
const asked = [];
function askToConnectAgain(...whose) { asked.push(whose); }
const server = app.listen(0, async () => {
  const body = JSON.stringify({event});
  const now = new Date();
  const headers = {
    "content-type": "application/json", "webhook-id": "msg_1",
    "webhook-timestamp": String(Math.floor(now / 1000)), "webhook-signature": verifier.sign("msg_1", now, body),
  };
  const url = `http://127.0.0.1:${server.address().port}/hooks/evergrant`;
  assert.equal((await fetch(url, { method: "POST", headers, body })).status, 204);
  assert.equal((await fetch(url, { method: "POST", headers, body: body + " " })).status, 400);
  assert.deepEqual(asked, [["alice", "google-contacts"]]);
  server.closeAllConnections();
  server.close();
});
""".replace("{event}", json.dumps(DEAD))
"""The same for the Express receiver: what follows it in its file."""
