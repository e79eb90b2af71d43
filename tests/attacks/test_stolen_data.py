"""Whoever gets a copy of what is stored, without the master key, gets nobody's secret, and has none opened."""

import base64
import os
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from evergrant.settings import Settings
from tests.infra.installation import APP_ID, CLIENT_SECRET, Backend, Installation, installation
from tests.infra.postgres import PostgresServer
from tests.infra.receiver import Receiver
from tests.infra.rows import execute, rows
from tests.infra.scripted import serving
from tests.infra.settings import settings_on
from tests.infra.waiting import wait_until

PLANTED = {name: f"planted-{name}-5c1d" for name in ("access-token", "refresh-token", "api-key", "secret-of-an-app")}


@pytest.fixture
def here(settings: Settings) -> Iterator[Installation]:
    with installation(settings.model_copy(update={"refresher": False})) as running:
        yield running


def stored(settings: Settings, postgres_server: PostgresServer) -> bytes:
    """Return every byte that the database has on the disk, or everything that a dump of it holds."""
    if settings.uses_sqlite:
        return b"".join(file.read_bytes() for file in sorted(settings.data_dir.glob("evergrant.db*")))
    assert settings.database_url is not None
    database = urlsplit(settings.database_url.get_secret_value()).path.removeprefix("/")
    tables = postgres_server.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database=database)
    # escaped, and not in hexadecimal, so that text within bytes is found too
    text = "SET bytea_output = 'escape'; COPY {} TO STDOUT"
    return "".join(postgres_server.execute(text.format(t), database=database) for t in tables.split()).encode()


def plant(here: Installation, hooks: Receiver) -> set[str]:
    """Put a secret of each kind into the installation, and return them all."""
    upload = {"appId": APP_ID, "accessToken": PLANTED["access-token"], "refreshToken": PLANTED["refresh-token"]}
    assert here.backend.post("app/user/oauthtoken/upload", {**upload, "userId": "uploaded"}).status_code == 200
    here.backend.create_app({"id": "keys", "name": "Keys", "appType": "apikey"})
    key = {"appId": "keys", "userId": "uploaded", "apiKey": PLANTED["api-key"]}
    assert here.backend.post("app/user/apikey/upload", key).status_code == 200
    here.backend.create_app({"id": "other", "name": "Other", "clientSecret": PLANTED["secret-of-an-app"]})
    secret = here.backend.post("webhook/create", {"url": f"{hooks.url}/hook"}).json()["secret"]
    here.connected("connected")
    browser = here.browser()
    link = here.backend.connect_url("under-way")
    asked = parse_qs(urlsplit(browser.agree(link)).query)
    state = here.provider.state
    found = {*PLANTED.values(), CLIENT_SECRET, secret, secret.removeprefix("whsec_"), here.backend.management_key}
    found |= {
        link.rpartition("/")[2],
        asked["state"][0],
        *state.access_tokens,
        *state.refresh_tokens,
    }
    return found | {cookie.value or "" for cookie in browser.http.cookies.jar}


def test_a_stolen_dump_holds_no_secret_in_any_of_its_bytes(here: Installation, postgres_server: PostgresServer) -> None:
    with serving(Receiver()) as hooks:
        secrets = plant(here, hooks)
    assert len(secrets) > 12
    stolen = stored(here.settings, postgres_server)
    for secret in secrets:
        for form in (secret.encode(), base64.b64encode(secret.encode()), secret.encode().hex().encode()):
            assert form not in stolen, secret
    # control: what is no secret is found by the same search, and whoever may have the secrets has them
    for name in (b"under-way", b"uploaded", b"Practice contacts", b"contacts.readonly"):
        assert name in stolen
    token = {"appId": APP_ID, "userId": "uploaded", "options": {"withRefreshToken": True}}
    answer = here.backend.post("app/user/token/latest", token).json()["token"]
    assert (answer["accessToken"], answer["refreshToken"]) == (PLANTED["access-token"], PLANTED["refresh-token"])


@pytest.mark.parametrize(
    "elsewhere",
    [
        "(SELECT access_token FROM grants WHERE user_id = 'victim')",
        "refresh_token",
        f"(SELECT client_secret FROM outbound_apps WHERE id = '{APP_ID}')",
    ],
    ids=["another's row", "another column", "another table"],
)
def test_a_thief_who_writes_to_the_database_gets_no_ciphertext_opened_that_stood_elsewhere(
    here: Installation, elsewhere: str
) -> None:
    for user in ("victim", "mallory"):
        here.connected(user)
    victims = here.backend.token("victim")["accessToken"]
    execute(here.settings, f"UPDATE grants SET access_token = {elsewhere} WHERE user_id = 'mallory'")
    answer = here.backend.fetch("mallory")
    assert answer.status_code == 500
    for secret in (victims, CLIENT_SECRET, *here.provider.state.refresh_tokens):
        assert secret not in answer.text
    assert here.backend.token("victim")["accessToken"] == victims  # control: where it stood, it opens


def test_a_stolen_digest_of_a_management_key_lets_nobody_in(here: Installation) -> None:
    (row,) = rows(here.settings, "management_keys")
    stolen = {name: value for name, value in row.items() if isinstance(value, bytes)}
    assert stolen, "a digest is stored"
    for value in stolen.values():
        assert here.backend.management_key.encode() not in value
        for form in (
            value.hex(),
            base64.b64encode(value).decode(),
            base64.urlsafe_b64encode(value).decode().rstrip("="),
        ):
            for text in (form, f"evg_{row['id']}_{form}"):
                thief = Backend(here.url, here.backend.project_id, text)
                assert thief.get("apps").status_code == 401
                thief.http.close()
    assert here.backend.get("apps").status_code == 200  # control


def in_the_clear(file: Path) -> bytes:
    """Return a file's bytes, and behind them what its Base64 stands for."""
    text = file.read_bytes()
    words = re.findall(rb'"([A-Za-z0-9+/]{16,}={0,2})"', text)
    return text + b"".join(base64.b64decode(word + b"==") for word in words)


def journal_of(data_dir: Path) -> list[Path]:
    return [file for file in (data_dir / "journal").glob("*.json") if file.is_file()]


def test_a_stolen_journal_holds_no_token(sqlite_url: str, data_dir: Path) -> None:
    """The journal has answers of providers that the database could not take."""
    settings = settings_on(sqlite_url, data_dir, refresher=False)
    with (
        installation(settings) as here,
        closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as database,
    ):
        here.connected("alice")
        grant = here.backend.token("alice")["id"]
        database.execute(
            "CREATE TRIGGER takes_no_token BEFORE UPDATE OF access_token ON grants"
            " BEGIN SELECT RAISE(ABORT, 'it does not take this'); END"
        )
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(here.backend.fetch, "alice", options={"forceRefresh": True})
            wait_until(lambda: bool(journal_of(data_dir)), "the answer could not land, so it is in the journal")
            files = journal_of(data_dir)
            state = here.provider.state
            assert len(state.access_tokens) == 2
            for file in files:
                assert stat.S_IMODE(file.stat().st_mode) == 0o600
                stolen = in_the_clear(file)
                for token in (*state.access_tokens, *state.refresh_tokens):
                    assert token.encode() not in stolen
            assert any(grant.encode() in file.read_bytes() for file in files)  # control: what is no secret is found
            database.execute("DROP TRIGGER takes_no_token")
            waiting.result()


def test_a_neighbour_on_the_same_machine_reads_neither_database_nor_master_key(tmp_path: Path) -> None:
    folder = tmp_path / "open to all"
    folder.mkdir(mode=0o755)
    environment = {**os.environ, "EVERGRANT_DATA_DIR": str(folder)}
    command = [sys.executable, "-m", "evergrant", "init"]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, umask=0)
    assert made.returncode == 0, made.stderr
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert len(files) >= 2
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file
