"""The demo gives everything to everybody: nobody but its own machine reaches it, and `serve` has none of it."""

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from evergrant.errors import ConfigurationError
from evergrant.practice.demo import run_demo
from evergrant.settings import Settings
from evergrant.web.app import create_app
from tests.infra.demo import Demo
from tests.infra.serving import LiveApp


def listening(port: int) -> set[str]:
    """Return the addresses at which some process of this machine listens on a port."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            host, _, number = local.partition(":")
            if state == "0A" and int(number, 16) == port:
                words = [bytes.fromhex(host[at : at + 8])[::-1] for at in range(0, len(host), 8)]
                found.add(str(ipaddress.ip_address(b"".join(words))))
    return found


def test_a_neighbour_in_the_network_does_not_reach_the_demo(tmp_path: Path) -> None:
    with Demo(tmp_path) as demo:
        url = demo.url()
        port = urlsplit(url).port or 0
        assert listening(port) == {"127.0.0.1"}
        assert httpx2.get(url, trust_env=False).status_code == 200  # control
        # a page elsewhere whose name was made to lead here is not this machine's guide
        rebound = httpx2.get(url, headers={"Host": f"attacker.example:{port}"}, trust_env=False)
        assert rebound.status_code >= 400


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "evergrant.example.com"])
async def test_the_demo_refuses_to_be_put_on_a_network(host: str) -> None:
    with pytest.raises(ConfigurationError, match="not a loopback address"):
        await run_demo(host=host, port=0, practice_port=0, data_dir=None)


def test_a_server_has_nothing_of_the_demo_and_makes_nobody_a_project(settings: Settings) -> None:
    with (
        LiveApp(create_app(settings.model_copy(update={"refresher": False}))) as server,
        httpx2.Client(base_url=server.url, trust_env=False) as http,
    ):
        for path in ("/guide", "/authorize", "/token", "/register", "/api/contacts", "/steps", "/state"):
            assert http.get(path).status_code in (404, 405), path
            assert http.post(path).status_code in (404, 405), path
        assert http.get("/healthz").status_code == 200  # control
