"""The house: what is shipped around the code says the same as the code."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, String, select, text

from evergrant.broker.runtime.principal import ALL_PERMISSIONS
from evergrant.cli import cli
from evergrant.db import Base, ManagementKey
from evergrant.db.engine import database_url as with_driver
from evergrant.db.engine import make_engine
from evergrant.settings import PREFIX, SECRETS, Settings

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
CLIENT_LOCKS = sorted(str(one.relative_to(ROOT)) for one in ROOT.glob("tests/mcp/environments/*.txt"))
LOCKS = ["requirements.lock", "requirements-build.lock", "requirements-dev.lock", "requirements-docs.lock"]
OURS = {name: service for name, service in COMPOSE["services"].items() if "build" in service}
EVERY_SETTING = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}


def lines_of_shell(text: str) -> Iterator[str]:
    """Yield the command lines in Markdown: what stands in fenced shell blocks, continued lines joined."""
    for block in re.findall(r"```(?:sh|bash|shell|console)\n(.*?)```", text, flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            yield line.strip().removeprefix("$ ")


def documented_commands() -> list[str]:
    pages = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
    lines = [line for page in pages for line in lines_of_shell(page.read_text())]
    lines += [shlex.join(["evergrant", *service["command"]]) for service in OURS.values()]
    exec_forms = re.findall(r"^CMD (\[.*\])$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines += [shlex.join(["evergrant", *yaml.safe_load(form)]) for form in exec_forms]
    found = re.compile(r"(?:^|[\s/|(])evergrant( +[a-z][^|;&)#>]*)")
    return sorted({"evergrant" + match[1].rstrip() for line in lines for match in found.finditer(line)})


def unknown_words(command_line: str) -> list[str]:
    """Return the verbs and options of an `evergrant ...` line that the command line does not have."""
    command: click.Command = cli
    unknown = []
    for word in shlex.split(command_line)[1:]:
        if word.startswith("-"):
            options = {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"--help"}
            if word.split("=")[0] not in options:
                unknown.append(word)
        elif isinstance(command, click.Group):
            verb = command.get_command(click.Context(command), word)
            if verb is None:
                return [*unknown, word]
            command = verb
    return unknown


@pytest.mark.parametrize("command_line", documented_commands())
def test_a_documented_command_exists(command_line: str) -> None:
    assert unknown_words(command_line) == []


def test_a_misspelt_command_would_be_noticed() -> None:
    assert unknown_words("evergrant serve --hots 0.0.0.0") == ["--hots"]
    assert unknown_words("evergrant sevre") == ["sevre"]


def test_every_make_target_in_the_readme_and_the_contributing_guide_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set()
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        named |= {match[1] for line in lines_of_shell(page.read_text()) if (match := re.match(r"make ([a-z]+)", line))}
    assert named, "they name no target, so this test shows nothing"
    assert named <= targets


def test_every_setting_is_in_the_example_environment_and_no_other() -> None:
    text = (ROOT / ".env.example").read_text()
    assert set(re.findall(rf"^#?({PREFIX}[A-Z_]+)=", text, flags=re.MULTILINE)) == EVERY_SETTING
    assert {f"{PREFIX}{name.upper()}_FILE" for name in SECRETS} <= set(re.findall(rf"{PREFIX}[A-Z_]+", text))


def test_compose_sets_only_what_is_a_setting() -> None:
    names = {name for service in OURS.values() for name in service["environment"]}
    assert {name for name in names if not name.startswith("OTEL_")} <= EVERY_SETTING


def test_compose_runs_every_part_of_evergrant_from_one_image() -> None:
    assert set(OURS) == {"migrate", "evergrant", "refresher"}
    assert {service["image"] for service in OURS.values()} == {f"evergrant:{PROJECT['project']['version']}"}


@pytest.mark.parametrize("name", OURS)
def test_a_container_has_no_privileges_and_a_read_only_root(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_image_does_not_run_as_root() -> None:
    last_stage = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (\d+)", last_stage, flags=re.MULTILINE) == ["10001"]


@pytest.mark.parametrize("lock", [*LOCKS, *CLIENT_LOCKS])
def test_a_lock_pins_by_hash_and_names_no_place(lock: str) -> None:
    text = (ROOT / lock).read_text()
    requirements = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert requirements
    assert [r.split(" ")[0] for r in requirements if "==" not in r or "--hash=sha256:" not in r] == []
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text


@pytest.mark.parametrize(
    ("lock", "groups"),
    [("requirements.lock", []), ("requirements-dev.lock", ["dev", "build"]), ("requirements-docs.lock", ["docs"])],
)
def test_a_lock_covers_what_the_project_depends_on(lock: str, groups: list[str]) -> None:
    wanted = [] if groups == ["docs"] else [*PROJECT["project"]["dependencies"]]
    wanted += [r for group in groups for r in PROJECT["dependency-groups"][group] if isinstance(r, str)]
    names = {re.split(r"[\[>=<; ]", requirement)[0] for requirement in wanted}
    pinned = set(re.findall(r"^([a-z0-9.-]+)(?:\[.*\])?==", (ROOT / lock).read_text(), flags=re.MULTILINE))
    assert names - pinned == set()


LEFT_BEHIND = {("grants", "last_fetched_at")}
"""Columns that only the version before uses, which may run beside this one."""


async def test_the_migrations_build_exactly_what_the_models_say(database_url: str) -> None:
    def differences(connection: Connection) -> list[Any]:
        # SQLite enforces no lengths, so that no migration copies a table to change one there.
        is_sqlite = connection.dialect.name == "sqlite"

        def has_changed(_context: Any, _column: Any, _ours: Any, there: Any, here: Any) -> bool | None:
            return False if is_sqlite and isinstance(there, String) and isinstance(here, String) else None

        context = MigrationContext.configure(connection, opts={"compare_type": has_changed})
        found = list(compare_metadata(context, Base.metadata))
        return [one for one in found if one[0] != "remove_column" or (one[2], one[3].name) not in LEFT_BEHIND]

    engine = make_engine(with_driver(database_url, Path()))
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


def upgrade(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


async def test_an_upgrade_lets_a_key_that_may_do_everything_do_so_still(tmp_path: Path, postgres_server: Any) -> None:
    first = ["apps:read", "apps:write", "connect", "tokens:fetch", "tokens:fetch:refresh_token", "tokens:write"]
    everything, less = sorted([*first, "keys", "audit"]), sorted([*first, "keys"])

    for url in (f"sqlite:///{tmp_path / 'old.db'}", postgres_server.create_database("old_keys")):
        engine = make_engine(with_driver(url, Path()))
        async with engine.begin() as connection:
            await connection.run_sync(upgrade, "0003")
            insert = "INSERT INTO projects (id, name, redirect_origins, created_at) VALUES ('P1', 'One', '[]', '{}')"
            await connection.exec_driver_sql(insert.format("2026-01-31 00:00:00"))
            for name, permissions in (("all", everything), ("less", less)):
                await connection.execute(
                    text(
                        "INSERT INTO management_keys (project_id, id, name, description, digest, permissions, app_ids,"
                        " allowed_cidrs, disabled, created_at) SELECT 'P1', :name, :name, '', :digest, "
                        + ("CAST(:permissions AS json)" if engine.dialect.name == "postgresql" else ":permissions")
                        + ", '[]', '[]', false, created_at FROM projects"
                    ),
                    {"name": name, "digest": name.encode(), "permissions": json.dumps(permissions)},
                )
            await connection.run_sync(upgrade, "head")
            rows = await connection.execute(select(ManagementKey.id, ManagementKey.permissions))
            assert {row.id: row.permissions for row in rows} == {"all": sorted(ALL_PERMISSIONS), "less": less}
        await engine.dispose()


def test_the_workflow_runs_what_has_to_pass_on_every_python_that_is_promised() -> None:
    (job,) = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"].values()
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))
    assert job["strategy"]["matrix"]["python"] == promised
    assert f">={promised[0]}" == PROJECT["project"]["requires-python"]
    assert job["steps"][-1] == {"run": ".ci/run"}
    assert job["env"]["PYTHON"].startswith("python${{"), "the Makefile reads PYTHON"


def test_the_hooks_before_a_commit_are_tools_that_the_lock_pins() -> None:
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert {repository["repo"] for repository in repositories} == {"local"}, "nothing is fetched from elsewhere"
    entries = [hook["entry"].split()[0] for repository in repositories for hook in repository["hooks"]]
    tools = {entry.removeprefix(".venv/bin/") for entry in entries}
    assert tools == {"ruff", "mypy"}
    assert tools <= set(
        re.findall(r"^([a-z0-9.-]+)==", (ROOT / "requirements-dev.lock").read_text(), flags=re.MULTILINE)
    )


@pytest.mark.parametrize(
    "form", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda form: form.stem
)
def test_an_issue_form_is_one(form: Path) -> None:
    body = yaml.safe_load(form.read_text())["body"]
    ids = [field["id"] for field in body if field["type"] != "markdown"]
    assert ids
    assert len(ids) == len(set(ids))
    for field in body:
        assert field["attributes"].get("label") or field["attributes"]["value"]


def test_the_changelog_speaks_of_this_version() -> None:
    assert f"## [{PROJECT['project']['version']}]" in (ROOT / "CHANGELOG.md").read_text()
