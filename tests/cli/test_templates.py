"""The app library on the command line: what there is, a look at a file, and an app from a template."""

from pathlib import Path

import pytest
from joserfc.jwk import ECKey

from evergrant.settings import Settings
from tests.cli.conftest import Evergrant
from tests.infra.rows import execute, rows
from tests.infra.scripted import ScriptedProvider, serving
from tests.oauth2.network import LOOPBACK

ENTRY = """
name = "Example"
category = "crm"
documentation_url = "https://example.com/docs"
verification = "unconfirmed"
authorization_endpoint = "https://{shop}.example.com/authorize"
token_endpoint = "https://{shop}.example.com/token"
[variables.shop]
title = "Shop"
pattern = "[a-z]{1,20}"
example = "acme"
"""
KEYS = """
name = "Keys"
category = "crm"
app_type = "apikey"
documentation_url = "https://example.com/docs"
verification = "unconfirmed"
[fields.username]
title = "User name"
secret = false
[fields.password]
title = "API password"
[api]
credential = { in = "basic", username = "{username}", password = "{password}" }
"""
SIGNED = """
name = "Signed"
category = "crm"
app_type = "signed_jwt"
documentation_url = "https://example.com/docs"
verification = "unconfirmed"
assertion = { alg = "ES256", claims = { iss = "{issuer_id}" } }
[variables.issuer_id]
title = "Issuer ID"
example = "42"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "entries"
    folder.mkdir()
    (folder / "example.toml").write_text(ENTRY)
    return folder


@pytest.fixture
def with_entry(settings: Settings, folder: Path) -> Settings:
    return settings.model_copy(update={"catalog_dir": folder})


def test_templates_are_listed_found_and_shown(evergrant: Evergrant, with_entry: Settings) -> None:
    listed = evergrant(with_entry, "templates", "list", "--json").json
    assert {"example", "github"} <= {row["id"] for row in listed}
    (found,) = evergrant(with_entry, "templates", "search", "Example", "crm", "--json").json
    assert found == {
        "id": "example",
        "name": "Example",
        "category": "crm",
        "appType": "oauth",
        "verification": "unconfirmed",
        "reviewed": "",
        "retires": "",
        "variables": ["shop"],
        "fields": [],
    }
    assert evergrant(with_entry, "templates", "search", "no such words").out == "none\n"
    assert "https://{shop}.example.com/token" in evergrant(with_entry, "templates", "show", "example").out
    assert (
        evergrant(with_entry, "templates", "show", "example", "--json").json["variables"]["shop"]["example"] == "acme"
    )
    assert "shop = Shop (you give it, required); like acme" in evergrant(with_entry, "templates", "show", "example").out
    wrong = evergrant(with_entry, "templates", "show", "exampel")
    assert (wrong.code, wrong.out) == (1, "")
    assert "did you mean example?" in wrong.err


def test_a_file_is_checked_before_it_is_used(evergrant: Evergrant, settings: Settings, folder: Path) -> None:
    file = folder / "example.toml"
    assert evergrant(settings, "templates", "lint", str(file)).out == "good: example\n"
    keys = folder / "keys.toml"
    keys.write_text(KEYS)
    assert evergrant(settings, "templates", "lint", str(keys)).out == "good: keys (API key: username + password)\n"
    file.write_text(ENTRY.replace("[a-z]{1,20}", ".*"))
    done = evergrant(settings, "templates", "lint", str(file))
    assert (done.code, done.out) == (1, "")
    assert "example.toml" in done.err
    assert "variables.shop.pattern" in done.err


def test_an_app_is_made_from_a_template(evergrant: Evergrant, with_entry: Settings) -> None:
    assert evergrant(with_entry, "init").code == 0
    create = ("apps", "create", "--template", "example", "--client-id", "c", "--client-secret", "s")
    missing = evergrant(with_entry, *create)
    assert missing.code == 1
    assert "variables.shop" in missing.err
    made = evergrant(with_entry, *create, "--variable", "shop=acme", "--json")
    assert made.json["id"] == "example"
    assert made.json["name"] == "Example"
    assert evergrant(with_entry, *create[:2], "other", *create[2:], "--name", "Other", "--variable", "shop=b").code == 0
    assert evergrant(with_entry, "apps", "create", "--client-id", "c", "--client-secret", "s").code == 2
    assert evergrant(with_entry, "apps", "create", "--template", "openai", "--json").json["id"] == "openai"


def test_what_is_missing_is_said_before_a_secret_is_asked_for(evergrant: Evergrant, with_entry: Settings) -> None:
    assert evergrant(with_entry, "init").code == 0
    create = ("apps", "create", "--template", "example", "--client-id", "c")
    for variables, said in (
        ((), "variables.shop: is required: Shop, like acme"),
        (("--variable", "shop=a/b"), "variables.shop: use a value like acme"),
        (("--variable", "sop=a"), "variables.sop: cannot be given here; use shop"),
    ):
        done = evergrant(with_entry, *create, *variables)
        assert done.code == 1
        assert said in done.err
        assert "Client secret" not in done.out


def test_the_client_follows_when_the_provider_knows_the_redirect_uri(
    evergrant: Evergrant, with_entry: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evergrant(with_entry, "init").code == 0
    made = evergrant(with_entry, "apps", "create", "--template", "example", "--variable", "shop=acme")
    assert "(see https://example.com/docs): evergrant apps update example --client-id" in made.out
    (app,) = evergrant(with_entry, "apps", "list", "--json").json
    assert (app["clientId"], app["callbackUrl"] in made.out) == ("", True)
    monkeypatch.setenv("CLIENT_SECRET", "s")
    done = evergrant(with_entry, "apps", "update", "example", "--client-id", "c", "--json")
    assert done.json == app | {"clientId": "c"}
    told = evergrant(with_entry, "apps", "update", "example", "--client-id", "c").out
    assert "Its client secret goes to https://{shop}.example.com/token" in told
    assert evergrant(with_entry, "apps", "update", "example").code == 2
    assert evergrant(with_entry, "apps", "update", "nothing", "--own-callback").code == 1


def test_an_app_from_before_is_moved_to_an_address_of_its_own(
    evergrant: Evergrant, with_entry: Settings, settings: Settings
) -> None:
    def advice() -> list[str]:
        found = evergrant(with_entry, "doctor", "--json")
        assert found.code == 0
        return [row["text"] for row in found.json if row["advice"] and row["check"] == "app example"]

    assert evergrant(with_entry, "init").code == 0
    create = ("apps", "create", "--template", "example", "--client-id", "c", "--client-secret", "s")
    own = evergrant(with_entry, *create, "--variable", "shop=acme", "--json").json["callbackUrl"]
    assert advice() == []
    execute(settings, "UPDATE outbound_apps SET own_callback = false")
    (said,) = advice()
    assert f"register {own} at the provider" in said
    assert "todo " in evergrant(with_entry, "doctor").out
    assert evergrant(with_entry, "apps", "update", "example", "--own-callback", "--json").json["callbackUrl"] == own
    assert advice() == []


def test_the_command_line_says_whether_replaced_consents_are_revoked(
    evergrant: Evergrant, with_entry: Settings, settings: Settings
) -> None:
    assert evergrant(with_entry, "init").code == 0
    create = ("apps", "create", "--template", "example", "--client-id", "c", "--client-secret", "s")
    assert evergrant(with_entry, *create, "--variable", "shop=acme").code == 0
    for option, revoked in (("--revoke-replaced", True), ("--keep-replaced", False)):
        assert evergrant(with_entry, "apps", "update", "example", option).code == 0
        (app,) = rows(settings, "outbound_apps")
        assert bool(app["revoke_replaced"]) is revoked


def test_an_app_of_api_keys_has_nothing_to_register(evergrant: Evergrant, with_entry: Settings) -> None:
    assert evergrant(with_entry, "init").code == 0
    made = evergrant(with_entry, "apps", "create", "--template", "twilio").out
    assert "apikey/upload" in made
    assert "/callback" not in made + evergrant(with_entry, "apps", "list").out


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_credentials_are_stored_from_the_command_line(
    evergrant: Evergrant, with_entry: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "keys.toml").write_text(KEYS)
    asked: list[tuple[str, bool]] = []

    def typed(text: str, *, hide_input: bool) -> str:
        asked.append((text, hide_input))
        return "typed"

    monkeypatch.setattr("click.prompt", typed)
    assert evergrant(with_entry, "init").code == 0
    made = evergrant(with_entry, "apps", "create", "--template", "keys").out
    assert "takes username, password" in made
    assert "evergrant connections add keys --user" in made
    add = ("connections", "add", "keys", "--user", "ada", "--field", "username=ada")
    assert evergrant(with_entry, *add).out == "keys  user ada  stored\n"
    assert asked == [("API password", True)]
    (folder / "password").write_text("in a file\n")
    assert evergrant(with_entry, *add, "--field", f"password=@{folder / 'password'}").code == 0
    assert len(asked) == 1
    assert evergrant(with_entry, *add, "--field", "password=@nothing").code == 2
    assert evergrant(with_entry, "connections", "add", "keys").code == 2
    wrong = evergrant(with_entry, *add, "--field", "word=x")
    assert (wrong.code, "use username, password" in wrong.err) == (1, True)
    shown = evergrant(with_entry, "templates", "show", "keys").out
    assert "password = API password (required)" in shown
    assert "apikey (API key)" in shown


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_app_that_signs_is_given_its_key_from_a_file(
    evergrant: Evergrant, with_entry: Settings, settings: Settings, folder: Path
) -> None:
    (folder / "signed.toml").write_text(SIGNED)
    (folder / "key.pem").write_bytes(ECKey.generate_key("P-256").as_pem(private=True))
    assert evergrant(with_entry, "init").code == 0
    made = evergrant(with_entry, "apps", "create", "--template", "signed", "--variable", "issuer_id=7")
    assert "evergrant apps update signed --signing-key FILE" in made.out, made.err
    early = evergrant(with_entry, "connections", "add", "signed", "--tenant", "acme")
    assert (early.code, "it lacks signingKey" in early.err) == (1, True)
    assert evergrant(with_entry, "apps", "update", "signed", "--signing-key", str(folder / "key.pem")).code == 0
    assert evergrant(with_entry, "connections", "add", "signed", "--tenant", "acme").code == 0
    (grant,) = rows(settings, "grants")
    assert (grant["tenant_id"], grant["access_token"] is not None) == ("acme", True)


def test_doctor_finds_apps_whose_template_is_gone(
    evergrant: Evergrant, with_entry: Settings, settings: Settings
) -> None:
    evergrant(with_entry, "init")
    create = ("apps", "create", "--template", "example", "--client-id", "c", "--client-secret", "s")
    assert evergrant(with_entry, *create, "--variable", "shop=acme").code == 0

    def finding(of: Settings) -> tuple[bool, str]:
        (row,) = (row for row in evergrant(of, "doctor", "--json").json if row["check"] == "apps' templates")
        return row["good"], row["text"]

    assert finding(with_entry) == (True, "1 apps have one, all are there")
    good, text = finding(settings)
    assert not good
    assert "example (example)" in text
    execute(settings, "UPDATE outbound_apps SET template_id = ''")
    assert finding(settings)[0]


@pytest.mark.parametrize(("on", "word"), [("2999-01-01", "todo"), ("2020-01-01", "WRONG")])
def test_doctor_names_apps_with_an_address_that_ends(
    evergrant: Evergrant, with_entry: Settings, folder: Path, on: str, word: str
) -> None:
    evergrant(with_entry, "init")
    create = ("apps", "create", "--template", "example", "--client-id", "c", "--client-secret", "s")
    assert evergrant(with_entry, *create, "--variable", "shop=acme").code == 0
    before = evergrant(with_entry, "doctor")
    assert "app example" not in before.out
    entry = ENTRY.replace(
        'token_endpoint = "https://{shop}.example.com/token"', 'token_endpoint = "https://{shop}.example.com/v2/token"'
    )
    ends = 'field = "token_endpoint", value = "https://{shop}.example.com/token", page = "https://example.com/news"'
    retires = f"retires = [{{ {ends}, on = {on} }}]\n"
    (folder / "example.toml").write_text(entry.replace("[variables", retires + "[variables"))
    told = evergrant(with_entry, "doctor")
    (line,) = (line for line in told.out.splitlines() if "app example" in line)
    assert line.startswith(word)
    assert f"on {on} (https://example.com/news): set tokenUrl to https://acme.example.com/v2/token" in line
    assert told.code == (1 if word == "WRONG" else before.code)


def test_the_command_line_makes_no_app_of_a_provider_that_is_gone(evergrant: Evergrant, settings: Settings) -> None:
    evergrant(settings, "init")
    made = evergrant(settings, "apps", "create", "--template", "fitbit", "--client-id", "c", "--client-secret", "s")
    assert made.code == 1
    assert "use the template google-health" in made.err
    assert "ends on 2026-11-02" not in made.err


def test_a_probe_tells_whether_an_api_is_there_and_refuses_who_has_no_credential(
    evergrant: Evergrant, settings: Settings, folder: Path
) -> None:
    without = settings.model_copy(update={"catalog_dir": folder})
    assert "It has no check" in evergrant(without, "templates", "probe", "example").out
    with serving(ScriptedProvider()) as provider:
        api = f'[api]\nbase_url = "{provider.url}/{{shop}}"\ncheck = "GET /me"\nsources = 2\n'
        (folder / "example.toml").write_text(f"{ENTRY}{api}")
        here = settings.model_copy(update={"catalog_dir": folder, "egress_allow": LOOPBACK})
        for answer, code, said in (
            ((401, {}), 0, "good  example: It refuses who has no credential (http_401)."),
            ({"id": 1}, 1, "WRONG  example: It answers 200 to anybody"),
            ((404, {}), 1, "WRONG  example: Example answered 404"),
        ):
            provider.routes = {"/acme/me": answer}
            done = evergrant(here, "templates", "probe", "example")
            assert (done.code, said in done.out) == (code, True), done
        assert "authorization" not in provider.requests[0].headers
