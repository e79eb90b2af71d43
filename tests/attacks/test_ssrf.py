"""Whoever names a URL for evergrant to call does not get it to call the network that it stands in."""

import asyncio
import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from evergrant.web.app import create_app
from tests.infra.installation import Backend, new_project
from tests.infra.scripted import ScriptedProvider, answer, serving
from tests.infra.serving import LiveApp
from tests.infra.settings import settings_on

OPENED = "127.0.0.2"
"""The one address that the operator has opened: a provider is there."""
NOT_PUBLIC = """
    0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 100.127.255.254 127.0.0.1 127.1.2.3
    168.63.129.16 169.254.0.1 169.254.169.253 169.254.169.254 169.254.170.2 172.16.0.1 172.31.255.254 192.0.0.1
    192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1 192.168.255.254 198.18.0.1 198.19.255.254 198.51.100.1 203.0.113.1
    224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 :: ::1 ::127.0.0.1 ::10.0.0.1 ::ffff:127.0.0.1
    ::ffff:10.0.0.1 ::ffff:169.254.169.254 64:ff9b::127.0.0.1 64:ff9b::169.254.169.254 64:ff9b:1::127.0.0.1 100::1
    2001::1 2001:0:7f00:1::1 2001:10::1 2001:db8::1 2002:7f00:1::1 2002:a9fe:a9fe::1 2002:a00:1::1 3fff::1 fc00::1
    fd00:ec2::254 fe80::1 fec0::1 ff02::1 ff0e::1
""".split()  # noqa: SIM905 - one line each would be a page
PORT = "{port}"
URLS = [
    *(f"{scheme}://{host}:{PORT}/" for scheme in ("https", "http") for host in ("127.0.0.1", "localhost", "[::1]")),
    *(f"https://{host}:{PORT}/" for host in ("2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001")),
    *(f"https://{host}:{PORT}/" for host in ("127.1", "127.0.1", "127.0.0.1.", "0", "0.0.0.0", "[::]", "LOCALHOST")),
    *(f"https://{host}:{PORT}/" for host in ("app.localhost", "localhost.", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]")),
    *(f"https://{host}:{PORT}/" for host in ("[64:ff9b::7f00:1]", "[::127.0.0.1]", "[2002:7f00:1::]", "[::1%25lo]")),
    *(f"https://{host}/" for host in ("169.254.169.254", "[fd00:ec2::254]", "168.63.129.16", "100.100.100.200")),
    *(
        f"https://{host}/"
        for host in ("10.0.0.1", "192.168.0.1", "172.16.0.1", "192.0.0.192", "2852039166", "0xa9fea9fe")
    ),
    *(f"https://{host}:{PORT}/" for host in ("user@127.0.0.1", "8.8.8.8@127.0.0.1", "8.8.8.8\\@127.0.0.1")),
    *(f"https://{host}:{PORT}/" for host in ("127.0.0.1\t", "127.0.0.1%00.example.com", "①②⑦.⓪.⓪.①", "127。0。0。1")),
    *(f"{scheme}://127.0.0.1:{PORT}/" for scheme in ("ftp", "file", "gopher", "dict", "ws")),
]


class Names:
    """The system's resolver, of which the attacker owns a name; it tells each answer in turn, the last one for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.turns: list[list[str]] = [["127.0.0.1"]]
        self.true = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self.getaddrinfo)

    def getaddrinfo(self, host: Any, port: Any, *arguments: Any, **options: Any) -> list[Any]:
        if host != "attacker.example":
            return self.true(host, port, *arguments, **options)
        turn = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
        families = {4: socket.AF_INET, 6: socket.AF_INET6}
        return [(families[ipaddress.ip_address(a).version], socket.SOCK_STREAM, 6, "", (a, port)) for a in turn]


class Door(ScriptedProvider):
    """A provider that may hang up as soon as somebody has connected."""

    hangs_up = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.hangs_up:
            return await super().serve(reader, writer)
        self.connections += 1
        return writer.close()


class Installed:
    """An evergrant whose operator has opened one address, a provider there, and something inside to be reached."""

    def __init__(self, backend: Backend, inside: ScriptedProvider, provider: Door) -> None:
        self.backend, self.inside, self.provider = backend, inside, provider

    def configure(self, url: str) -> dict[str, httpx2.Response]:
        """Give a URL to everything that evergrant calls or shows; return the answers by field."""
        app = {"name": "An app", "clientId": "c"}
        fields = ("tokenUrl", "authorizationUrl", "revocationUrl", "userinfoUrl", "jwksUrl", "discoveryUrl")
        answers = {field: self.backend.post("app/create", {**app, field: url}) for field in fields}
        answers["dcrUrl"] = self.backend.post("app/create", {"name": "An app", "useDcr": True, "dcrUrl": url})
        answers["webhook"] = self.backend.post("webhook/create", {"url": url})
        issuer = {"issuer": "https://idp.example", "jwksUrl": url, "audience": "a"}
        answers["issuer's keys"] = self.backend.http.post("/v1/mgmt/trustedissuer", json=issuer)
        issuer = {"issuer": url, "audience": "a"}
        answers["issuer"] = self.backend.http.post("/v1/mgmt/trustedissuer", json=issuer)
        return answers


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


@pytest.fixture
def here(sqlite_url: str, data_dir: Path) -> Iterator[Installed]:
    settings = settings_on(sqlite_url, data_dir, egress_allow=f"{OPENED}/32", refresher=False)
    made = new_project(settings)
    port = httpx2.URL(settings.public_url).port or 0
    with (
        LiveApp(create_app(settings), port=port) as server,
        serving(Door(), OPENED) as provider,
        serving(ScriptedProvider(), "127.0.0.1", port=provider.port) as inside,
    ):
        backend = Backend(server.url, made.project_id, made.management_key)
        yield Installed(backend, inside, provider)
        backend.http.close()


def test_no_url_of_the_inner_network_can_be_configured_in_whatever_spelling(here: Installed) -> None:
    assert len(URLS) >= 47
    for form in URLS:
        url = form.replace(PORT, str(here.inside.port))
        for field, said in here.configure(url).items():
            assert said.status_code == 400, (field, url, said.text)
    assert here.inside.connections == 0
    allowed = f"http://{OPENED}:{here.provider.port}/token"  # control
    assert here.backend.post("app/create", {"name": "Good", "clientId": "c", "tokenUrl": allowed}).status_code == 200


def test_no_name_leads_to_an_address_that_is_not_public(
    here: Installed, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name says nothing about where it leads: the guard looks at the address that is called."""
    assert len(NOT_PUBLIC) >= 55
    called: list[str] = []

    async def connect(remote_host: str, **_: Any) -> None:
        called.append(remote_host)
        raise OSError("nothing leaves this machine")

    monkeypatch.setattr("anyio.connect_tcp", connect)
    monkeypatch.setattr("evergrant.oauth2.name_cache.GOOD_SECONDS", 0.0)
    for addresses in ([address] for address in NOT_PUBLIC):
        names.turns = [addresses]
        said = here.backend.post("app/create", {"name": "An app", "discoveryUrl": "https://attacker.example"})
        assert said.status_code == 400, addresses
    assert called == []
    names.turns = [["10.0.0.1", "8.8.8.8", "169.254.169.254"]]  # control: of these, the public one alone is tried
    here.backend.post("app/create", {"name": "An app", "discoveryUrl": "https://attacker.example"})
    assert set(called) == {"8.8.8.8"}


def test_a_name_server_that_changes_its_mind_after_the_check_gains_nothing(
    here: Installed, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the address that was checked is the one that is connected to."""
    monkeypatch.setattr("evergrant.oauth2.name_cache.GOOD_SECONDS", 0.0)  # so that each turn is asked for
    url = f"https://attacker.example:{here.provider.port}"
    here.provider.hangs_up = True  # for how TLS goes on is another matter
    turns = ([[OPENED], ["127.0.0.1"]], [["127.0.0.1"], [OPENED]], [["127.0.0.1", OPENED]], [[OPENED, "127.0.0.1"]])
    for number, answers in enumerate(turns):
        names.turns = list(answers)
        here.backend.post("app/create", {"name": f"An app {number}", "discoveryUrl": url})
        assert here.inside.connections == 0, answers
    assert here.provider.connections >= 3  # control: wherever the opened address came first, it was called


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_provider_that_redirects_leads_evergrant_nowhere(here: Installed, status: int) -> None:
    inside = f"http://127.0.0.1:{here.inside.port}/latest/meta-data"
    here.provider.answers(answer(status, location=inside))
    url = f"http://{OPENED}:{here.provider.port}"
    app = {"name": "An app", "clientId": "c", "clientSecret": "s", "tokenUrl": f"{url}/token", "authorizationUrl": url}
    app_id = here.backend.create_app(app)["id"]
    upload = {"appId": app_id, "userId": "u", "refreshToken": "rt", "verifyRefresh": True}
    assert here.backend.post("app/user/oauthtoken/upload", upload).status_code >= 400
    assert here.backend.post("app/create", {"name": "Other", "discoveryUrl": f"{url}/"}).status_code == 400
    assert len(here.provider.requests) > 1  # control: it was called
    assert here.inside.connections == 0


def test_a_proxy_of_the_environment_does_not_get_around_the_guard(
    here: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{here.inside.port}")
    url = f"http://{OPENED}:{here.provider.port}/"
    here.backend.post("app/create", {"name": "An app", "discoveryUrl": url})
    assert here.provider.requests  # control: called directly
    assert here.inside.connections == 0
