"""The command line: what it prints, what it changes, and how it fails."""

import re
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr

from evergrant.broker.runtime import broker as broker_module
from evergrant.crypto.kms.local import new_master_key
from evergrant.settings import Settings
from evergrant.web.app import create_app
from tests.cli.conftest import Done, Evergrant
from tests.infra.installation import BACK, Backend, practice_provider
from tests.infra.postgres import PostgresServer
from tests.infra.serving import LiveApp, free_port
from tests.infra.settings import settings_on
from tests.infra.waiting import wait_until


def failed_in_one_line(done: Done) -> bool:
    return done.code == 1 and done.out == "" and re.fullmatch(r"evergrant: [^\n]+\n", done.err) is not None


def test_init_prints_what_an_sdk_needs(evergrant: Evergrant, settings: Settings) -> None:
    done = evergrant(settings, "init", "--json", "--name", "Shop", "--redirect-origin", "https://app.example.com/")
    assert done.code == 0
    assert list(done.json) == ["projectId", "managementKey", "publicUrl"]
    assert re.fullmatch(r"P[A-Za-z0-9]{26}", done.json["projectId"])
    assert done.json["managementKey"].startswith("evg_")
    (project,) = evergrant(settings, "projects", "list", "--json").json
    assert project == {
        "id": done.json["projectId"],
        "name": "Shop",
        "redirectOrigins": ["https://app.example.com"],
    }


def test_init_prints_the_same_for_a_person(evergrant: Evergrant, settings: Settings) -> None:
    done = evergrant(settings, "init")
    assert re.search(r"^project id +P\w+$", done.out, flags=re.MULTILINE)
    assert re.search(r"^management key +evg_\w+$", done.out, flags=re.MULTILINE)


def test_init_with_an_origin_that_cannot_be_one_makes_nothing(evergrant: Evergrant, settings: Settings) -> None:
    done = evergrant(settings, "init", "--redirect-origin", "http://app.example.com")
    assert failed_in_one_line(done)
    assert "redirectOrigins" in done.err
    assert evergrant(settings, "projects", "list").out == "none\n"


def test_redirect_origins_are_allowed_and_forbidden(evergrant: Evergrant, settings: Settings, project: str) -> None:
    one, other = "https://one.example.com", "https://other.example.com:8443"
    assert evergrant(settings, "projects", "allow-redirect", project, f"{one}/").out == f"{one}\n"
    assert evergrant(settings, "projects", "allow-redirect", project, other).out == f"{one}\n{other}\n"
    assert evergrant(settings, "projects", "allow-redirect", project, one).out == f"{one}\n{other}\n"
    assert evergrant(settings, "projects", "forbid-redirect", project, one).out == f"{other}\n"
    assert evergrant(settings, "projects", "forbid-redirect", project, other).out == "none\n"


def test_a_project_is_renamed_and_gets_embed_origins(evergrant: Evergrant, settings: Settings, project: str) -> None:
    one = "https://one.example.com"
    assert evergrant(settings, "projects", "rename", project, " Acme ").out == "Acme\n"
    assert evergrant(settings, "projects", "allow-embed", project, f"{one}/").out == f"{one}\n"
    (shown,) = evergrant(settings, "projects", "list", "--json").json
    assert (shown["name"], shown["redirectOrigins"]) == ("Acme", [])
    assert evergrant(settings, "projects", "forbid-embed", project, one).out == "none\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["projects", "allow-redirect", "Pnobody", "https://a.example.com"], "no project 'Pnobody'"),
        (["projects", "allow-redirect", "{project}", "javascript:alert(1)"], "redirectOrigins"),
        (["keys", "list", "--project", "Pnobody"], "no project 'Pnobody'"),
        (["keys", "disable", "nothing"], "no management key 'nothing'"),
        (["keys", "enable", "nothing"], "no management key 'nothing'"),
        (["keys", "delete", "nothing"], "no management key 'nothing'"),
        (["keys", "create", "--name", "x", "--from", "everywhere"], "allowedCidrs"),
        (["apps", "delete", "--yes", "nothing"], "no outbound app"),
        (
            ["apps", "create", "x", "--name", "X", "--client-id", "c", "--client-secret", "s3", "--token-url", "x"],
            "token",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line(
    evergrant: Evergrant, settings: Settings, project: str, arguments: list[str], says: str
) -> None:
    done = evergrant(settings, *(argument.format(project=project) for argument in arguments))
    assert failed_in_one_line(done), done
    assert says in done.err


def test_a_choice_between_projects_has_to_be_made(evergrant: Evergrant, settings: Settings, project: str) -> None:
    assert evergrant(settings, "keys", "list").code == 0
    other = evergrant(settings, "init", "--json").json["projectId"]
    done = evergrant(settings, "keys", "list")
    assert failed_in_one_line(done)
    assert project in done.err
    assert other in done.err
    assert evergrant(settings, "keys", "list", "--project", other).code == 0


def test_without_a_project_the_remedy_is_named(evergrant: Evergrant, settings: Settings) -> None:
    done = evergrant(settings, "keys", "list")
    assert failed_in_one_line(done)
    assert "evergrant init" in done.err


def test_keys_are_made_with_limits_and_listed_without_their_text(
    evergrant: Evergrant, settings: Settings, project: str
) -> None:
    made = evergrant(
        settings,
        *("keys", "create", "--json", "--name", "agent", "--permission", "tokens:fetch", "--permission", "connect"),
        *("--app", "contacts", "--from", "203.0.113.0/24", "--days", "30"),
    ).json
    listed = evergrant(settings, "keys", "list", "--json")
    assert made["managementKey"] not in listed.out
    admin, agent = listed.json
    assert (admin["name"], admin["permissions"], admin["expires"]) == ("admin", ["all"], None)
    assert agent["id"] == made["id"]
    assert (agent["name"], agent["status"], agent["apps"]) == ("agent", "active", ["contacts"])
    assert (agent["permissions"], agent["from"]) == (["connect", "tokens:fetch"], ["203.0.113.0/24"])
    assert agent["expires"]
    for name in ("admin", "agent"):
        assert name in evergrant(settings, "keys", "list").out


def test_a_running_server_follows_within_five_seconds(
    evergrant: Evergrant, settings: Settings, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert broker_module.REMEMBER_SECONDS < 5
    monkeypatch.setattr(broker_module, "REMEMBER_SECONDS", 0.2)
    made = evergrant(settings, "keys", "create", "--json", "--name", "agent").json
    server = LiveApp(create_app(settings.model_copy(update={"refresher": False})))
    backend = Backend(server.url, project, made["managementKey"])

    def becomes(status: int) -> None:
        wait_until(lambda: backend.get("apps").status_code == status, f"the server answers {status}")

    with server:
        becomes(200)
        for verb, status in (("disable", 401), ("enable", 200), ("delete", 401)):
            assert evergrant(settings, "keys", verb, made["id"]).code == 0
            becomes(status)
    backend.http.close()


def test_apps_are_made_listed_and_deleted(
    evergrant: Evergrant, settings: Settings, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with practice_provider() as provider:
        monkeypatch.setenv("CLIENT_SECRET", "s3cret-from-the-environment")
        done = evergrant(
            settings,
            *("apps", "create", "contacts", "--name", "Contacts", "--client-id", "c1", "--scope", "contacts"),
            *("--discovery-url", provider.url, "--json"),
        )
    assert (done.code, done.json["id"], done.json["clientId"]) == (0, "contacts", "c1")
    assert "/v1/outbound/oauth/callback/" in done.json["callbackUrl"]
    listed = evergrant(settings, "apps", "list", "--json")
    assert [app["id"] for app in listed.json] == ["contacts"]
    assert "s3cret" not in done.out + listed.out
    assert evergrant(settings, "apps", "delete", "--yes", "contacts").code == 0
    assert evergrant(settings, "apps", "list", "--json").json == []


def test_an_app_and_an_origin_may_be_pasted_with_what_stood_around_them(
    evergrant: Evergrant, settings: Settings, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = evergrant(settings, "projects", "allow-redirect", project, " https://app.example.com\n")
    assert "https://app.example.com" in origin.out.splitlines()
    monkeypatch.setenv("CLIENT_SECRET", "s3cret\n")
    with practice_provider() as provider:
        done = evergrant(
            settings,
            *("apps", "create", "contacts ", "--name", " Contacts", "--client-id", "\u00a0c1\n", "--json"),
            *("--discovery-url", f" {provider.url}\n", "--scope", "contacts ", "--redirect-url", f"{BACK} "),
        )
    assert (done.code, done.json["id"], done.json["clientId"]) == (0, "contacts", "c1"), done.out
    shop = ("apps", "create", "shop", "--template", "okta", "--client-id", "c1", "--json")
    assert evergrant(settings, *shop, "--variable", "hostname=https://acme.okta.com/ ").code == 0


def test_a_new_master_key_can_be_used_as_it_is_printed(evergrant: Evergrant, settings: Settings) -> None:
    key = evergrant({}, "keyring", "new").out.strip()
    assert evergrant(settings.model_copy(update={"master_keys": SecretStr(key)}), "init").code == 0


def check(done: Done) -> dict[str, bool]:
    return {finding["check"]: finding["good"] for finding in done.json}


def test_doctor_finds_nothing_wrong_with_a_good_installation(
    evergrant: Evergrant, settings: Settings, project: str
) -> None:
    done = evergrant(settings, "doctor", "--json")
    assert done.code == 0
    assert set(check(done).values()) == {True}
    assert check(done).keys() >= {
        "settings",
        "master keys",
        "database",
        "clock",
        "migrations",
        "data keys",
        "public URL",
        "app library",
        "MCP server",
    }
    assert "WRONG" not in evergrant(settings, "doctor").out


def test_doctor_finds_a_wrong_master_key(evergrant: Evergrant, settings: Settings, project: str) -> None:
    wrong = settings.model_copy(update={"master_keys": SecretStr(new_master_key())})
    done = evergrant(wrong, "doctor", "--json")
    assert (done.code, check(done)["data keys"], check(done)["database"]) == (1, False, True)
    assert "EVERGRANT_MASTER_KEYS" in done.out
    assert "WRONG" in evergrant(wrong, "doctor").out


def test_a_wrong_file_in_the_catalogue_folder_stops_a_start_and_doctor_finds_it_before(
    evergrant: Evergrant, settings: Settings, project: str, tmp_path: Path
) -> None:
    (tmp_path / "our-crm.toml").write_text('extends = "hubspot"\ntoken_endpiont = "https://crm.example.com/token"\n')
    wrong = settings.model_copy(update={"catalog_dir": tmp_path})
    done = evergrant(wrong, "doctor", "--json")
    assert (done.code, check(done)["app library"], check(done)["data keys"]) == (1, False, True)
    for command in ("serve", "refresher"):
        refused = evergrant(wrong, command)
        assert failed_in_one_line(refused), refused
        assert "our-crm.toml: token_endpiont: there is no such field; did you mean token_endpoint?" in refused.err


def test_doctor_finds_that_postgresql_needs_a_master_key(
    evergrant: Evergrant, postgresql_url: str, data_dir: Path
) -> None:
    settings = Settings(data_dir=data_dir, database_url=SecretStr(postgresql_url))
    done = evergrant(settings, "doctor", "--json")
    assert (done.code, check(done)["master keys"]) == (1, False)
    assert failed_in_one_line(evergrant(settings, "init"))


def test_doctor_finds_pending_migrations_and_names_the_command(
    evergrant: Evergrant, postgres_server: PostgresServer, data_dir: Path
) -> None:
    name = f"empty_{free_port()}"
    url = postgres_server.create_database(name)
    settings = settings_on(url, data_dir)
    try:
        done = evergrant(settings, "doctor", "--json")
        assert (done.code, check(done)["migrations"]) == (1, False)
        for command in ("init", "serve", "refresher"):
            refused = evergrant(settings, command)
            assert failed_in_one_line(refused), refused
            assert "evergrant db upgrade" in refused.err
        assert evergrant(settings, "db", "upgrade").out == "The schema is current.\n"
        assert evergrant(settings, "db", "upgrade").code == 0
        assert evergrant(settings, "doctor").code == 0
    finally:
        postgres_server.drop_database(name)


@pytest.mark.parametrize("command", ["serve", "refresher"])
def test_a_server_brings_postgresql_up_to_date_when_it_is_told_to(
    evergrant: Evergrant,
    postgres_server: PostgresServer,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    started = []

    async def run(settings: Settings) -> None:
        started.append("refresher")

    monkeypatch.setattr("evergrant.cli.serve.uvicorn.run", lambda *_, **__: started.append("serve"))
    monkeypatch.setattr("evergrant.cli.serve.background.run", run)
    name = f"empty_{free_port()}"
    url = postgres_server.create_database(name)
    settings = settings_on(url, data_dir)
    try:
        assert evergrant(settings, command, "--migrate").code == 0
        assert started == [command]
        assert evergrant(settings, "doctor").code == 0
    finally:
        postgres_server.drop_database(name)


def test_doctor_finds_that_the_database_is_away(evergrant: Evergrant, data_dir: Path, tmp_path: Path) -> None:
    away = settings_on(f"postgresql://postgres:s3cret@/nowhere?host={tmp_path}", data_dir)
    done = evergrant(away, "doctor", "--json")
    assert (done.code, check(done)["database"]) == (1, False)
    assert "No such file or directory. See that PostgreSQL runs" in done.out
    assert "s3cret" not in done.out
    nowhere = evergrant(Settings(data_dir=tmp_path / "nowhere"), "doctor", "--json")
    assert (nowhere.code, check(nowhere)["database"]) == (1, False)
    assert f"there is none in {tmp_path / 'nowhere'}: 'evergrant serve' makes it" in nowhere.out
    for command in ("init", "serve"):
        refused = evergrant(away, command)
        assert failed_in_one_line(refused), refused
        assert "s3cret" not in refused.err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EVERGRANT_PUBLIC_URL", "http://evergrant.example.com"),
        ("EVERGRANT_PUBLIC_URL", "https://evergrant.example.com/path"),
        ("EVERGRANT_EGRESS_ALLOW", "everything"),
        ("EVERGRANT_MASTER_KEYS", "s3cret"),
        ("EVERGRANT_DATABASE_URL", "mysql://user:s3cret@host/db"),
        ("EVERGRANT_DATABASE_URL", "s3cret"),
        ("EVERGRANT_LOG_LEVEL", "loud"),
        ("EVERGRANT_BOOTSTRAP_PROJECT_ID", "alone"),
        ("EVERGRANT_MASTER_KEYS_FILE", "/nowhere/at-all"),
    ],
)
def test_a_wrong_setting_is_named_without_its_secret(
    evergrant: Evergrant, data_dir: Path, name: str, value: str
) -> None:
    environment = {"EVERGRANT_DATA_DIR": str(data_dir), "EVERGRANT_MASTER_KEYS": new_master_key(), name: value}
    for command in (["init"], ["serve"], ["doctor"]):
        done = evergrant(environment, *command)
        assert done.code == 1
        said = done.err + done.out
        assert name.removesuffix("_FILE") in said.upper().replace("BOOTSTRAP_PROJECT_ID AND", f"{name} AND")
        assert "s3cret" not in said
        assert "Traceback" not in said
        if command != ["doctor"]:
            assert failed_in_one_line(done), done


def test_a_secret_may_come_from_a_file(evergrant: Evergrant, data_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{new_master_key()}\n")
    environment = {"EVERGRANT_DATA_DIR": str(data_dir), "EVERGRANT_MASTER_KEYS_FILE": str(file)}
    assert evergrant(environment, "init").code == 0
    assert [path.name for path in data_dir.iterdir() if path.name == "master-key"] == []


def test_a_server_whose_database_goes_away_says_so_and_stays_alive(evergrant: Evergrant, data_dir: Path) -> None:
    server = PostgresServer()
    server.start()
    try:
        url = server.create_database("here")
        settings = settings_on(url, data_dir, refresher=False)
        assert evergrant(settings, "db", "upgrade").code == 0
        made = evergrant(settings, "init", "--json").json
        live = LiveApp(create_app(settings))
        backend = Backend(live.url, made["projectId"], made["managementKey"])
        fetch = {"appId": "any", "userId": "alice", "scopes": []}
        with live:
            assert backend.post("app/user/token", fetch).status_code == 404
            server.stop()
            for answer in (backend.post("app/user/token", fetch), backend.get("apps")):
                assert (answer.status_code, answer.json()["errorCode"]) == (503, "E011009")
                assert int(answer.headers["retry-after"]) > 0
            with httpx2.Client(base_url=live.url, trust_env=False) as http:
                assert http.get("/healthz").json() == {"status": "ok"}
                assert http.get("/readyz").status_code == 503
                server.start()
                assert http.get("/readyz").json() == {"status": "ready"}
            assert backend.post("app/user/token", fetch).status_code == 404
        backend.http.close()
    finally:
        server.remove()
