"""The README: its commands are run as they stand there, in their order."""

import base64
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from evergrant.settings import PREFIX
from tests.infra.installation import CLIENT_ID, CLIENT_SECRET, Browser, practice_provider
from tests.infra.serving import ServerProcess, free_port
from tests.infra.waiting import PATIENCE, wait_until

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SCOPE = "contacts.readonly"


class Block(NamedTuple):
    """A fenced block: its language and its text."""

    language: str
    text: str


BLOCKS = [Block(*match) for match in re.findall(r"```(\w*)\n(.*?)```\n", README, flags=re.DOTALL)]
FIRST_COMMANDS = "git clone ADDRESS_OF_THIS_REPOSITORY evergrant\ncd evergrant\n"
HEAVIEST_PICTURE = 200_000
NOT_RUN_HERE = {
    "python3 -m venv .venv\n. .venv/bin/activate\npip install .\n": "fetches packages; test_house.py builds the wheel",
    "cp .env.example .env\ndocker compose up\n": "needs a container engine; test_house.py reads the compose file",
}
SERVE = Block("sh", "evergrant serve\n")
"""Runs until it is stopped, so the test runs it beside the others."""


def is_executable(block: Block) -> bool:
    return block.language in ("sh", "python") and not block.text.startswith(FIRST_COMMANDS)


def with_shortened_line_ends(text: str) -> str:
    return re.sub(r"\s+#.*$", "", text, flags=re.MULTILINE)


def test_what_is_not_run_here_still_stands_in_the_readme() -> None:
    assert set(NOT_RUN_HERE) <= {block.text for block in BLOCKS if block.language == "sh"}


def test_every_fenced_block_says_its_language() -> None:
    assert {block.language for block in BLOCKS} == {"sh", "python", "json", "text"}


def test_make_knows_what_the_readme_says_about_it() -> None:
    (block,) = [block for block in BLOCKS if block.text.startswith(FIRST_COMMANDS)]
    assert BLOCKS.index(block) == 0, "these are the first commands that a newcomer sees"
    commands = with_shortened_line_ends(block.text.removeprefix(FIRST_COMMANDS)).splitlines()
    assert commands == ["make demo", "make test"]
    for command in commands:
        plan = subprocess.run([*shlex.split(command), "-n"], cwd=ROOT, capture_output=True, text=True, check=True)
        assert plan.stdout.strip(), command


def test_every_picture_is_in_the_repository_described_in_words_and_light() -> None:
    pictures = [dict(re.findall(r'(\w+)="([^"]*)"', tag)) for tag in re.findall(r"<img ([^>]*)>", README)]
    assert [picture["src"] for picture in pictures] == [
        "docs/images/overview-light.png",
        "docs/images/consent-light.png",
    ]
    for picture in pictures:
        assert len(picture["alt"].split()) > 10, picture["src"]
        assert (ROOT / picture["src"]).stat().st_size <= HEAVIEST_PICTURE, picture["src"]
    assert re.findall(r"!\[", README) == []


class Quickstart:
    """Somebody who follows the README in a temporary folder. The only differences are the substitutions here."""

    def __init__(self, folder: Path, provider_url: str, port: int) -> None:
        self.folder = folder
        self.port = port
        self.substitutions = {
            "http://127.0.0.1:8420": f"http://127.0.0.1:{port}",
            "https://accounts.google.com": provider_url,
            "https://www.googleapis.com/auth/contacts.readonly": SCOPE,
            "YOUR_CLIENT_ID": CLIENT_ID,
            "YOUR_CLIENT_SECRET": CLIENT_SECRET.replace("'", "'\\''"),
        }
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("EVERGRANT", "DESCOPE"))}
        self.environment |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            f"{PREFIX}PUBLIC_URL": f"http://127.0.0.1:{port}",
            f"{PREFIX}EGRESS_ALLOW": "127.0.0.0/8",  # the practice provider is on this machine
        }
        self.exported: list[str] = []

    def run(self, block: Block) -> str:
        """Run a block in the terminal of the blocks before it, and return what it printed."""
        text = block.text
        for written, meant in self.substitutions.items():
            text = text.replace(written, meant)
        self.exported += re.findall(r"^export .*$", text, flags=re.MULTILINE)
        shell = ["bash", "-euo", "pipefail", "-c", "\n".join([*self.exported, text])]
        command = shell if block.language == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, f"{block.text}\n{done.stdout}{done.stderr}"
        return done.stdout


def between(blocks: Iterator[Block], *, until: Block) -> Iterator[Block]:
    """Yield the blocks before `until`, which is taken too."""
    for block in blocks:
        if block == until:
            return
        yield block
    raise AssertionError(f"not in the README:\n{until.text}")


def test_the_quick_start_works_as_written(tmp_path: Path) -> None:
    assert shutil.which("curl"), "the quick start uses curl"
    port = free_port()
    blocks = iter([block for block in BLOCKS if is_executable(block) and block.text not in NOT_RUN_HERE])
    with practice_provider(f"http://127.0.0.1:{port}") as provider:
        reader = Quickstart(tmp_path, provider.url, port)
        assert list(between(blocks, until=SERVE)) == []
        data = {f"{PREFIX}DATA_DIR": str(tmp_path / "evergrant-data"), f"{PREFIX}EGRESS_ALLOW": "127.0.0.0/8"}
        with ServerProcess(data, port=port, log=tmp_path / "serve.log") as server:
            wait_until(lambda: f"Open {server.url}/console/enter/" in server.output(), "the link is printed")
            printed = reader.run(next(blocks))
            reader.substitutions["YOUR_MANAGEMENT_KEY"] = found(r"(evg_\S+)", printed)
            reader.substitutions["YOUR_PROJECT_ID"] = found(r"(?m)^(P\w{26})", printed)
            reader.run(next(blocks))  # the variables
            created = json.loads(reader.run(next(blocks)))["app"]
            assert created["callbackUrl"].startswith(f"http://127.0.0.1:{port}/v1/outbound/oauth/callback/")
            connect_through_browser(json.loads(reader.run(next(blocks)))["url"])
            token = json.loads(reader.run(next(blocks)))["token"]
            assert token["accessToken"] in provider.state.access_tokens
            assert reader.run(next(blocks)).strip() == token["accessToken"]
            assert list(blocks) == [], "the test does not run everything"
    (shown,) = [json.loads(block.text)["token"] for block in BLOCKS if block.language == "json"]
    assert list(shown) == list(token)
    assert {name: type(value) for name, value in shown.items()} == {name: type(value) for name, value in token.items()}


def connect_through_browser(url: str) -> None:
    browser = Browser()
    try:
        end = browser.open(browser.allow(browser.agree(url)))
        assert "is connected" in browser.open(str(end.url.join(end.headers["location"]))).text
    finally:
        browser.http.close()


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match, text
    return match[1]


def test_the_secrets_that_the_example_environment_generates_are_accepted() -> None:
    generated: dict[str, str] = {}
    command = ""
    for line in (ROOT / ".env.example").read_text().splitlines():
        if line.startswith("#   python3 -c"):
            command = line.removeprefix("#   ")
        elif command and re.fullmatch(r"[A-Z_]+=", line) and not line.endswith("PROJECT_ID="):
            _, flag, code = shlex.split(command)
            done = subprocess.run([sys.executable, flag, code], capture_output=True, text=True, check=True)
            generated[line.rstrip("=")], command = done.stdout.strip(), ""
    assert set(generated) == {"POSTGRES_PASSWORD", "EVERGRANT_MASTER_KEYS", "EVERGRANT_BOOTSTRAP_MANAGEMENT_KEY"}
    assert generated["POSTGRES_PASSWORD"].isalnum()
    assert len(base64.b64decode(generated["EVERGRANT_MASTER_KEYS"], validate=True)) == 32
    assert len(generated["EVERGRANT_BOOTSTRAP_MANAGEMENT_KEY"]) >= 32
