"""`evergrant apply`: a project becomes what a file says, nothing else changes, and no secret is ever shown."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evergrant.cli.apply_file import read_file
from evergrant.errors import InvalidValue
from evergrant.settings import Settings
from tests.cli.conftest import Done, Evergrant
from tests.infra.docs_reader import BLOCKS
from tests.infra.issuer import Issuer
from tests.infra.rows import execute
from tests.infra.scripted import serving
from tests.infra.serving import environment_of

EXAMPLE = next(block.text for block in BLOCKS if block.page == "apply.md" and block.language == "yaml")
HOOK = "https://api.example.com/hooks/as-good-as-a-password"
SECRETS = {
    "GOOGLE_CLIENT_SECRET": "GOCSPX-planted-secret",
    "LOGIN_CLIENT_SECRET": "planted login secret",
    "WEBHOOK_URL": HOOK,
    "WEBHOOK_SECRET": "whsec_cGxhbnRlZCBzZWNyZXQgb2YgYSB3ZWJob29r",
}
CRM_SECRET = "planted crm secret"


class Project:
    """A folder with the example of the documentation, and a project that it is applied to."""

    def __init__(self, evergrant: Evergrant, settings: Settings, folder: Path, text: str) -> None:
        self.evergrant, self.settings, self.folder = evergrant, settings, folder
        self.environment = {**environment_of(settings), **SECRETS}
        self.text = text
        self.said = ""
        """All that was printed."""
        (folder / "secrets").mkdir()
        (folder / "secrets/crm.txt").write_text(CRM_SECRET + "\n")
        self.id = str(evergrant(settings, "init", "--json").json["projectId"])

    def apply(self, *options: str, text: str | None = None) -> Done:
        file = self.folder / "evergrant.yaml"
        file.write_text(self.text if text is None else text)
        return self.run("apply", *options, str(file))

    def run(self, *arguments: str) -> Done:
        done = self.evergrant(self.environment, *arguments)
        self.said += done.out + done.err
        return done

    def listed(self, *what: str) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self.run(*what, "list", "--json").json
        return listed

    def audited(self) -> list[str]:
        return [one["action"] for one in self.run("audit", "search", "--json").json]


@pytest.fixture
def idp() -> Iterator[Issuer]:
    with serving(Issuer()) as running:
        yield running


@pytest.fixture
def made(evergrant: Evergrant, settings: Settings, tmp_path: Path, idp: Issuer) -> Project:
    """The example of the documentation, applied."""
    project = Project(evergrant, settings, tmp_path, EXAMPLE.replace("https://login.example.com", idp.url))
    done = project.apply("--yes")
    assert done.code == 0, done.err
    return project


def test_the_example_of_the_documentation_makes_what_it_says_and_then_nothing_is_to_do(made: Project) -> None:
    assert [app["id"] for app in made.listed("apps")] == ["crm", "google-contacts"]
    (issuer,) = made.listed("issuers")
    assert (issuer["audience"], issuer["hasLoginClientSecret"]) == ("https://api.example.com", True)
    assert [(one["action"], one["effect"]) for one in made.listed("policies")] == [
        ("fetch", "allow"),
        ("call", "approve"),
    ]
    assert [one["url"] for one in made.listed("webhooks")] == [HOOK]
    before = made.audited()
    assert {"app.created", "issuer.created", "policy.created", "webhook.created", "project.renamed"} <= set(before)

    again = made.apply("--plan")
    assert (again.code, again.out) == (0, "Nothing to do.\n")
    assert made.apply("--yes").code == 0
    assert made.audited() == before

    written = made.folder / "written.yaml"
    assert made.run("apply", "--write", str(written)).code == 0
    assert written.stat().st_mode & 0o777 == 0o600
    assert made.run("apply", "--plan", "--prune", str(written)).code == 0
    assert made.run("apply", "--write", str(written)).code == 1  # it is there already


def test_only_what_the_file_names_changes_and_no_secret_is_shown(
    made: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.environment |= {"LOGIN_CLIENT_SECRET": "another login secret", "GOOGLE_CLIENT_SECRET": "GOCSPX-another"}
    made.environment["WEBHOOK_SECRET"] = "whsec_" + "YW5vdGhlciBzZWNyZXQgb2YgYSB3ZWJob29r"
    made.text = made.text.replace("[contacts.read, contacts.write]", "[contacts.read]")
    made.text = made.text.replace("description: Tells users to connect again", "enabled: false")

    planned = made.apply("--plan", "--json")
    assert planned.code == 2
    assert [
        (step["act"], step["kind"], [one["field"] for one in step["changes"]]) for step in planned.json["steps"]
    ] == [
        ("update", "trustedIssuer", ["login.clientSecret"]),
        ("update", "app", ["clientSecret"]),
        ("update", "app", ["defaultScopes"]),
        ("update", "webhook", ["enabled", "secret"]),
    ]
    (scopes,) = planned.json["steps"][2]["changes"]
    assert (scopes["before"], scopes["after"]) == (["contacts.read", "contacts.write"], ["contacts.read"])

    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert made.apply().code == 1
    assert made.apply("--plan").code == 2
    assert made.apply("--yes").code == 0
    assert made.apply("--plan").code == 0

    (webhook,) = made.listed("webhooks")
    assert (webhook["status"], webhook["description"]) == ("disabled", "Tells users to connect again")
    assert made.audited().count("issuer.created") == 2
    made.text = made.text.replace("tenantClaim: org_id", "tenantClaim: tenant").replace("clientSecret: env:LOGIN", "# ")
    assert made.apply("--yes").code == 0
    (issuer,) = made.listed("issuers")
    assert (issuer["tenantClaim"], issuer["hasLoginClientSecret"]) == ("tenant", True)

    planted = [*SECRETS.values(), *(made.environment[name] for name in SECRETS), CRM_SECRET]
    said = made.said.replace(f'"url": "{HOOK}"', "")  # `webhooks list` shows it
    assert [secret for secret in planted if secret in said] == []


def test_only_prune_deletes_and_a_section_that_is_not_there_is_not_looked_at(made: Project) -> None:
    text = (
        re.sub(r"apps:.*", "", made.text, flags=re.DOTALL)
        + "policies:\n  - {appId: crm, action: fetch}\nwebhooks: []\n"
    )
    planned = made.apply("--plan", text=text)
    assert planned.code == 2
    assert "policy allow fetch of crm roles=support|sales" in planned.out
    assert "is not in the file, and stays" in planned.out
    assert made.apply("--yes", text=text).code == 0
    assert (len(made.listed("policies")), len(made.listed("webhooks")), len(made.listed("apps"))) == (3, 1, 2)

    pruned = made.apply("--yes", "--prune", "--json", text=text)
    assert [(step["act"], step["kind"]) for step in pruned.json["steps"]] == [("delete", "policy")] * 2 + [
        ("delete", "webhook")
    ]
    assert (len(made.listed("policies")), len(made.listed("webhooks")), len(made.listed("apps"))) == (1, 0, 2)
    assert made.apply("--yes", "--prune", text="apps: []\n").code == 0
    assert (made.listed("apps"), made.listed("policies"), len(made.listed("issuers"))) == ([], [], 1)


WRONG = [
    ("clientId: acme", "clientIdd: acme", "apps[1].clientIdd: there is no such field; did you mean clientId?"),
    ("clientId: acme", "client_id: acme", "apps[1].client_id: there is no such field; did you mean clientId?"),
    ("clientId: acme", "clientId: 12", "apps[1].clientId: is text: put it into quotes"),
    ("name: CRM", "id: other", "apps[1].id: stands here twice"),
    (
        "clientSecret: file:secrets/crm.txt",
        "clientSecret: hunter2",
        "apps[1].clientSecret: write env:NAME or file:PATH",
    ),
    ("file:secrets/crm.txt", "file:secrets/none.txt", "apps[1].clientSecret: secrets/none.txt cannot be read"),
    ("env:WEBHOOK_SECRET", "env:NOBODY_SET_IT", "webhooks[0].secret: the environment has no NOBODY_SET_IT: set it"),
    ("env:WEBHOOK_SECRET", "env:GOOGLE_CLIENT_SECRET", "webhooks[0].secret: is whsec_ and the Base64"),
    ("https://crm.example.com/oauth/token", "ftp://crm", "apps[1].tokenUrl: it must start with https://"),
    ("templateId: google-contacts", "templateId: gogle", "apps[0].templateId: there is no such template"),
    ("defaultRedirectUrl: https://app", "defaultRedirectUrl: https://evil", "apps[0].defaultRedirectUrl: "),
    ("appId: crm\n    action: fetch", "appId: cmr\n    action: fetch", "policies[0].appId: there is no such app"),
    ("effect: approve", "effect: perhaps", "policies[1].effect: "),
    ("policies:", "polices:", "polices: there is no such field; did you mean policies?"),
    ("[support, sales]", "[support, sales", "this is no YAML: "),
]


def test_what_is_wrong_is_told_by_line_and_field_and_nothing_is_done(
    evergrant: Evergrant, settings: Settings, tmp_path: Path
) -> None:
    project = Project(evergrant, settings, tmp_path, EXAMPLE)
    file = re.escape(str(tmp_path / "evergrant.yaml"))
    for right, wrong, problem in WRONG:
        assert right in EXAMPLE
        done = project.apply("--yes", text=EXAMPLE.replace(right, wrong))
        assert done.code == 1, wrong
        line = EXAMPLE[: EXAMPLE.index(right)].count("\n") + 1
        first = re.search(rf"{file}:(\d+): (.*)", done.err)
        assert first is not None, done.err
        assert first[2].startswith(problem), done.err
        assert abs(int(first[1]) - line) <= 1, (wrong, done.err)
        assert "hunter2" not in done.err
    folder = evergrant(settings, "apply", "--plan", str(tmp_path))
    assert (folder.code, "is a directory" in folder.err.lower()) == (1, True), "2 says that something would change"
    both = EXAMPLE.replace("    name: CRM", "    nam: CRM\n    prompt: none")
    told = project.apply("--yes", text=both).err
    assert "apps[1].nam: there is no such field; did you mean name?" in told
    assert "apps[1].prompt: is a list" in told
    assert {"app.created", "project.renamed"} & set(project.audited()) == set()


SECRET = "apps:\n- id: crm\n  clientSecret: "
TENFOLD = "".join(f"    - &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 7))
ODD = [
    (SECRET + "*hunter2", ":3: this is no YAML: found undefined alias"),
    (SECRET + "!hunter2 x", ":3: this is no YAML: could not determine a constructor for the tag"),
    (SECRET + "!hunter2!x y", ":3: this is no YAML: found undefined tag handle"),
    (SECRET + "&hunter2 [*hunter2]", ": this is no YAML that can be read"),
    (SECRET + "\n    - &a0 [hunter2]\n" + TENFOLD, ": its aliases stand for more than 1,000,000 values"),
    (SECRET + "\0hunter2", ": this is no YAML that can be read"),
    (SECRET + "file:/dev/zero", ":3: apps[0].clientSecret: /dev/zero is longer than any secret"),
    ('"app\\e[2J": []', r":1: app\u001b[2J: there is no such field"),
]


@pytest.mark.parametrize(("text", "problem"), ODD, ids=range(len(ODD)))
def test_an_odd_file_is_refused_before_it_costs_anything_and_what_may_be_a_secret_is_not_quoted(
    tmp_path: Path, text: str, problem: str
) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(text)
    with pytest.raises(InvalidValue) as refused:
        read_file(file)
    assert refused.value.message.startswith(f"{file}{problem}")
    assert "hunter2" not in refused.value.message


def test_a_stored_secret_that_cannot_be_opened_is_replaced_by_the_one_of_the_file(made: Project) -> None:
    execute(made.settings, "UPDATE trusted_issuers SET login_client_secret = (SELECT secret FROM webhooks)")
    planned = made.apply("--plan", "--json")
    assert [(step["kind"], [one["field"] for one in step["changes"]]) for step in planned.json["steps"]] == [
        ("trustedIssuer", ["login.clientSecret"])
    ]
    assert made.apply("--yes").code == 0
    assert made.apply("--plan").code == 0


def test_issuers_can_share_a_login_by_an_alias(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGIN_CLIENT_SECRET", "planted login secret")
    login = "&login {clientId: evergrant, clientSecret: env:LOGIN_CLIENT_SECRET}"
    file = tmp_path / "evergrant.yaml"
    file.write_text(
        f"trustedIssuers:\n- {{issuer: https://one, audience: us, login: {login}}}\n"
        "- {issuer: https://two, audience: us, login: *login}\n"
    )
    wanted, _ = read_file(file)
    secrets = [one.given["login_client_secret"].get_secret_value() for one in wanted.issuers or ()]
    assert secrets == ["planted login secret"] * 2


def test_a_plan_moves_no_cursor_whatever_others_have_named_their_things(
    evergrant: Evergrant, settings: Settings, tmp_path: Path
) -> None:
    project = Project(evergrant, settings, tmp_path, "project: {name: Shop}\n")
    execute(settings, "UPDATE projects SET name = '\x9b2J\u202eShop'")
    planned = project.apply("--plan")
    assert r'name: "\u009b2J\u202eShop" -> "Shop"' in planned.out
    assert planned.out.replace("\n", "").isprintable()


def test_what_cannot_be_done_is_told_with_what_was_and_the_next_run_goes_on(
    evergrant: Evergrant, settings: Settings, tmp_path: Path, idp: Issuer
) -> None:
    project = Project(evergrant, settings, tmp_path, EXAMPLE.replace("https://login.example.com", idp.url))
    there = f"discoveryUrl: {idp.url}"
    text = project.text.replace("authorizationUrl: https://crm.example.com/oauth/authorize", f"{there}/nothing")
    text = text.replace("    tokenUrl: https://crm.example.com/oauth/token\n", "")
    stopped = project.apply("--yes", text=text)
    assert stopped.code == 1
    assert "3 of 7 changes were made, and the rest was not: run it again." in stopped.err
    assert re.search(r"evergrant.yaml:\d+: apps\[1\].discoveryUrl: ", stopped.err)
    assert [app["id"] for app in project.listed("apps")] == ["google-contacts"]
    assert project.apply("--yes", text=text.replace("/nothing", "")).code == 0
    assert [app["id"] for app in project.listed("apps")] == ["crm", "google-contacts"]
    text = text.replace("/nothing", "")
    assert project.apply("--plan", text=text).code == 0

    before = project.listed("issuers")
    silent = text.replace("tenantClaim: org_id", f"jwksUrl: {idp.url}/nothing")
    assert re.search(r"yaml:\d+: trustedIssuers\[0\].jwksUrl: ", project.apply("--yes", text=silent).err)
    assert project.listed("issuers") == before  # it is trusted until its successor is
