"""From nothing to an installation: the generated master key, the first project, the bootstrap project."""

import asyncio
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from evergrant.broker.operations import setup
from evergrant.broker.runtime.broker import MASTER_KEY_FILE, create_master_key_file, load_keyring
from evergrant.crypto.kms.local import LocalKey, new_master_key
from evergrant.crypto.opaque import digest
from evergrant.errors import ConfigurationError, InvalidValue
from evergrant.settings import Settings
from tests.infra.installation import new_project
from tests.infra.rows import dump, execute

KEY = "Zr8t-hUqW3_nYb5xLc2Kd9VfGm4Ps7Ja"
OTHER_KEY = "pX6e_Rv1TgQ8wZ-yMk3Hs5Bn7Cj2Ld9F"


@pytest.fixture
def embedded(data_dir: Path) -> Settings:
    """Settings of somebody who set nothing."""
    return Settings(data_dir=data_dir / "new")


def test_the_generated_master_key_is_the_owners_alone_and_stays(embedded: Settings) -> None:
    asyncio.run(setup.prepare_database(embedded))
    path = embedded.data_dir / MASTER_KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(embedded.data_dir.stat().st_mode) == 0o700
    first = path.read_text()
    asyncio.run(setup.prepare_database(embedded))
    assert path.read_text() == first
    assert load_keyring(embedded).first_id


def test_processes_that_start_together_agree_on_one_master_key(
    embedded: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = new_master_key()
    path = embedded.data_dir / MASTER_KEY_FILE

    def link(source: Path, target: Path, real: Callable[[Path, Path], None] = os.link) -> None:
        target.write_text(theirs)  # the other process is a moment faster
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    assert create_master_key_file(embedded) is None
    assert path.read_text() == theirs
    assert list(embedded.data_dir.iterdir()) == [path]
    assert load_keyring(embedded).first_id == LocalKey.parse(theirs).id


def test_no_key_is_generated_where_one_is_configured_or_the_database_is_shared(data_dir: Path) -> None:
    shared = Settings(data_dir=data_dir, database_url=SecretStr("postgresql://db/evergrant"))
    assert create_master_key_file(shared) is None
    assert list(data_dir.iterdir()) == []
    with pytest.raises(ConfigurationError, match="EVERGRANT_MASTER_KEYS is not set"):
        load_keyring(shared)


def test_only_a_digest_of_a_management_key_is_stored(settings: Settings) -> None:
    made = new_project(settings)
    (row,) = dump(settings)["management_keys"]
    assert bytes(row["digest"]) == digest(made.management_key)
    assert made.management_key not in repr(row)


def bootstrap(settings: Settings, key: str = KEY, project: str = "shop") -> None:
    update = {"bootstrap_project_id": project, "bootstrap_management_key": SecretStr(key)}
    asyncio.run(setup.prepare_database(settings.model_copy(update=update)))


def test_the_bootstrap_project_is_made_once(settings: Settings) -> None:
    bootstrap(settings)
    before = dump(settings)
    assert [row["id"] for row in before["projects"]] == ["shop"]
    bootstrap(settings)
    assert dump(settings) == before


def test_another_bootstrap_key_takes_the_place_of_the_first(settings: Settings) -> None:
    bootstrap(settings)
    bootstrap(settings, OTHER_KEY)
    (row,) = dump(settings)["management_keys"]
    assert bytes(row["digest"]) == digest(OTHER_KEY)


def test_a_disabled_bootstrap_key_stays_disabled_whatever_the_setting(settings: Settings) -> None:
    bootstrap(settings)
    execute(settings, f"UPDATE management_keys SET disabled = {'1' if settings.uses_sqlite else 'true'}")
    bootstrap(settings)
    bootstrap(settings, OTHER_KEY)
    (row,) = dump(settings)["management_keys"]
    assert bool(row["disabled"]) is True


def test_a_deleted_bootstrap_key_is_not_brought_back(settings: Settings) -> None:
    bootstrap(settings)
    execute(settings, "DELETE FROM management_keys")
    bootstrap(settings)
    assert dump(settings)["management_keys"] == []


@pytest.mark.parametrize(
    ("key", "project"),
    [
        ("short", "shop"),
        ("k" * 31, "shop"),
        ("k k" * 20, "shop"),
        ("k" * 40, "shop"),
        ("evg_k1_" + "A" * 49, "shop"),  # of our own form, mistyped
        (KEY, "x" * 32),
    ],
)
def test_a_bootstrap_that_could_not_work_is_refused_and_writes_nothing(
    settings: Settings, key: str, project: str
) -> None:
    with pytest.raises(InvalidValue) as error:
        bootstrap(settings, key, project)
    assert key not in error.value.message
    assert dump(settings)["projects"] == []
