"""What the doctor says of master keys and data keys, and rotating on the command line."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from evergrant.cli import keyring as keyring_command
from evergrant.settings import Settings
from tests.cli.conftest import Evergrant
from tests.infra.earlier import seal_as_before_owners_were_bound
from tests.infra.installation import installation, new_project
from tests.infra.key_services import ROOT_TOKEN, aws_kms, openbao
from tests.infra.rows import execute


def test_the_doctor_tries_each_master_key_and_says_which_is_the_first(
    evergrant: Evergrant, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    new_project(settings)
    assert settings.master_keys is not None
    with aws_kms(monkeypatch) as kms, openbao(tmp_path) as bao:
        arn, uri = f"aws-kms:{kms.new_key()}", bao.new_key("doctor")
        keys = SecretStr(f"{uri},{arn},{settings.master_keys.get_secret_value()}")
        ours = settings.model_copy(update={"master_keys": keys, "vault_token": SecretStr(ROOT_TOKEN)})
        said = evergrant(ours, "doctor").out
        assert f"({uri}) wraps and unwraps and is the first" in said
        assert f"({arn}) wraps and unwraps" in said
        assert "(a key of 32 bytes) wraps and unwraps" in said
        assert settings.master_keys.get_secret_value() not in said
        assert ROOT_TOKEN not in said

        wrong = evergrant(ours.model_copy(update={"vault_token": SecretStr("revoked")}), "doctor").out
        assert "WRONG" in wrong
        assert "the token must be valid and may update transit/encrypt/doctor" in wrong
        assert f"({arn}) wraps and unwraps" in wrong, "one that is wrong hides no other"


def test_the_doctor_says_what_opens_for_any_owner_until_a_rotation_has_bound_it(
    evergrant: Evergrant, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring_command, "RESERVATION_SECONDS", 0)
    with installation(settings.model_copy(update={"refresher": False})) as here:
        here.connected("alice")
        assert "what is sealed opens for its owner only" in evergrant(settings, "doctor").out
        seal_as_before_owners_were_bound(settings)
        assert "5 values were sealed by an earlier version, without their owner" in evergrant(settings, "doctor").out
        assert "Sealed 5 values again" in evergrant(settings, "keyring", "rotate").out
        assert "what is sealed opens for its owner only" in evergrant(settings, "doctor").out
        assert here.backend.fetch("alice").status_code == 200


def test_a_rotation_says_what_did_not_open(
    evergrant: Evergrant, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring_command, "RESERVATION_SECONDS", 0)
    with installation(settings.model_copy(update={"refresher": False})) as here:
        here.connected("alice")
        execute(settings, "UPDATE grants SET user_id = 'mallory'")
        said = evergrant(settings, "keyring", "rotate")
        assert "Sealed 2 values again" in said.out
        assert "3 values do not open and stayed as they are" in said.err
