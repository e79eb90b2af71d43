"""Master keys in AWS KMS and in a transit engine: what wraps opens in its place, and what a refusal is called.

The far sides are moto's server and a real OpenBao, both over HTTP.
"""

import dataclasses
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from evergrant.crypto.keyring import Keyring
from evergrant.crypto.kms.aws import AwsKmsKey
from evergrant.crypto.kms.local import new_master_key
from evergrant.crypto.kms.master_key import MasterKey
from evergrant.crypto.kms.sources import read_master_keys
from evergrant.crypto.kms.transit import TransitAccess, TransitKey
from evergrant.crypto.sealed import Slot
from evergrant.errors import (
    CannotOpenSealed,
    ConfigurationError,
    KeyServiceUnavailable,
    MasterKeyRefused,
    OperatorError,
)
from tests.infra.key_services import Bao, Kms, aws_kms, openbao
from tests.infra.scripted import ScriptedProvider, json_answer, serving

PLACE = Slot("project", "data_keys", "wrapped", "0011223344556677", ("binds owner",))
KEY = bytes(range(32))


@pytest.fixture(scope="module")
def kms() -> Iterator[Kms]:
    with pytest.MonkeyPatch.context() as monkeypatch, aws_kms(monkeypatch) as running:
        yield running


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bao]:
    with openbao(tmp_path_factory.mktemp("openbao")) as running:
        yield running


def access(bao: Bao, *keys: str) -> TransitAccess:
    return TransitAccess(SecretStr(bao.new_token(*keys)))


def transit_key(bao: Bao, name: str) -> TransitKey:
    uri = bao.new_key(name)
    return TransitKey(uri.removeprefix("vault-transit:"), access(bao, name))


@pytest.fixture(params=["aws", "transit", "local"])
def new_key(request: pytest.FixtureRequest) -> Callable[[], MasterKey]:
    """Make another master key of one kind at each call."""
    if request.param == "aws":
        kms: Kms = request.getfixturevalue("kms")
        return lambda: AwsKmsKey(kms.new_key())
    if request.param == "transit":
        bao: Bao = request.getfixturevalue("bao")
        return lambda: transit_key(bao, f"key-{os.urandom(4).hex()}")
    return lambda: read_master_keys(new_master_key())[0]


async def test_what_a_master_key_wraps_it_unwraps(new_key: Callable[[], MasterKey]) -> None:
    key = new_key()
    wrapped = await key.wrap(PLACE, KEY)
    assert KEY not in wrapped
    assert await key.unwrap(PLACE, wrapped) == KEY
    assert len(key.id) == 12
    assert key.id != new_key().id


@pytest.mark.parametrize("change", [{"project_id": "another"}, {"row_id": "00" * 8}, {"bound": ()}])
async def test_a_wrapped_key_opens_in_its_place_only(new_key: Callable[[], MasterKey], change: dict[str, Any]) -> None:
    key = new_key()
    wrapped = await key.wrap(PLACE, KEY)
    with pytest.raises(CannotOpenSealed):
        await key.unwrap(dataclasses.replace(PLACE, **change), wrapped)


async def test_what_another_master_key_wrapped_does_not_open(new_key: Callable[[], MasterKey]) -> None:
    wrapped = await new_key().wrap(PLACE, KEY)
    with pytest.raises(OperatorError):  # a service may say that it must not, which is as true
        await new_key().unwrap(PLACE, wrapped)


@pytest.mark.parametrize("garbage", [b"x", b"vault:v1:AAAA", b"vault:v99:AAAA", b"\xff" * 60, b"x" * 300])
async def test_garbage_does_not_open(new_key: Callable[[], MasterKey], garbage: bytes) -> None:
    with pytest.raises(OperatorError):
        await new_key().unwrap(PLACE, garbage)


async def test_sources_stand_beside_each_other_in_any_order_and_the_first_wraps(kms: Kms, bao: Bao) -> None:
    local, arn, uri = new_master_key(), f"aws-kms:{kms.new_key()}", bao.new_key("mixed")
    for entries in ([local, arn, uri], [uri, local, arn], [arn, uri, local]):
        keys = read_master_keys(" ,\n".join(entries), access(bao, "mixed"))
        keyring = Keyring(keys)
        wrapped = await keyring.new_data_key("project")
        assert wrapped.master_key_id == keys[0].id
        for first in keys:
            again = await Keyring([first, *keys]).rewrap(wrapped)
            assert (await Keyring([first]).unwrap(again)).id == wrapped.id


async def test_a_transit_key_that_was_rotated_opens_what_its_earlier_version_wrapped(bao: Bao) -> None:
    key = transit_key(bao, "rotated")
    wrapped = await key.wrap(PLACE, KEY)
    bao.call("transit/keys/rotated/rotate")
    assert await key.unwrap(PLACE, wrapped) == KEY
    assert (await key.wrap(PLACE, KEY)).startswith(b"vault:v2:")


async def test_a_renewed_token_in_the_file_counts_at_once(bao: Bao, tmp_path: Path) -> None:
    uri = bao.new_key("by-agent")
    file = tmp_path / "token"
    key = TransitKey(uri.removeprefix("vault-transit:"), TransitAccess(token_file=file))
    with pytest.raises(MasterKeyRefused, match="EVERGRANT_VAULT_TOKEN_FILE"):
        await key.wrap(PLACE, KEY)
    file.write_text("revoked\n")
    with pytest.raises(MasterKeyRefused, match="permission denied"):
        await key.wrap(PLACE, KEY)
    file.write_text(bao.new_token("by-agent") + "\n")
    assert await key.unwrap(PLACE, await key.wrap(PLACE, KEY)) == KEY


async def test_a_token_that_may_not_use_the_key_is_said_with_what_it_must_be_allowed(bao: Bao) -> None:
    uri = bao.new_key("forbidden")
    key = TransitKey(uri.removeprefix("vault-transit:"), access(bao, "other"))
    with pytest.raises(MasterKeyRefused, match="may update transit/encrypt/forbidden and transit/decrypt/forbidden"):
        await key.wrap(PLACE, KEY)


async def test_a_misspelt_key_is_not_made_by_the_way(bao: Bao) -> None:
    bao.new_key("spelt")
    key = TransitKey(f"{bao.url}/transit/misspelt", access(bao, "misspelt"))
    with pytest.raises(MasterKeyRefused):
        await key.wrap(PLACE, KEY)
    listed = bao.call("transit/keys?list=true", method="GET")["data"]["keys"]
    assert "spelt" in listed
    assert "misspelt" not in listed


async def test_a_mount_that_is_not_there_is_said(bao: Bao) -> None:
    with pytest.raises(MasterKeyRefused, match=r"\((403|404)"):
        await TransitKey(f"{bao.url}/elsewhere/key", TransitAccess(SecretStr(bao.token))).wrap(PLACE, KEY)


async def test_an_aws_key_that_is_gone_is_said(kms: Kms) -> None:
    with pytest.raises(MasterKeyRefused, match="NotFoundException"):
        await AwsKmsKey(kms.new_key()[:-4] + "0000").wrap(PLACE, KEY)


@pytest.mark.parametrize(
    ("status", "code", "meaning"),
    [
        (400, "DisabledException", MasterKeyRefused),
        (400, "KMSInvalidStateException", MasterKeyRefused),
        (400, "AccessDeniedException", MasterKeyRefused),
        (400, "UnrecognizedClientException", MasterKeyRefused),
        (400, "InvalidCiphertextException", CannotOpenSealed),
        (400, "IncorrectKeyException", CannotOpenSealed),
        (400, "ThrottlingException", KeyServiceUnavailable),
        (500, "KMSInternalException", KeyServiceUnavailable),
        (503, "DependencyTimeoutException", KeyServiceUnavailable),
        (502, "whatever", KeyServiceUnavailable),
    ],
)
async def test_what_aws_answers_is_told_apart(
    kms: Kms, monkeypatch: pytest.MonkeyPatch, status: int, code: str, meaning: type[Exception]
) -> None:
    with serving(ScriptedProvider()) as service:
        service.answers((status, {"__type": code, "message": "as AWS says it"}))
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", service.url)
        with pytest.raises(meaning, match="kms:Decrypt" if meaning is MasterKeyRefused else None):
            await AwsKmsKey(kms.new_key()).unwrap(PLACE, b"wrapped")
        (sent, *_) = service.requests
        assert sent.json["EncryptionContext"] == {
            "project": "project",
            "dataKey": "0011223344556677",
            "format": "2",
        }
        assert sent.json["KeyId"].startswith("arn:"), "or any key that evergrant may use would do"


async def test_an_alias_names_an_aws_key_too(kms: Kms) -> None:
    arn = kms.new_key()
    kms.client().create_alias(AliasName="alias/evergrant", TargetKeyId=arn)
    alias = AwsKmsKey(arn.rpartition(":")[0] + ":alias/evergrant")
    assert await AwsKmsKey(arn).unwrap(PLACE, await alias.wrap(PLACE, KEY)) == KEY


async def test_no_aws_credentials_are_said(kms: Kms, monkeypatch: pytest.MonkeyPatch) -> None:
    key = AwsKmsKey(kms.new_key())
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(MasterKeyRefused, match="redentials"):
        await key.wrap(PLACE, KEY)


async def test_a_service_that_is_away_is_called_away(kms: Kms, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    nobody.close()
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", url)
    for key in (AwsKmsKey(kms.new_key()), TransitKey(f"{url}/transit/key", TransitAccess(SecretStr("token")))):
        with pytest.raises(KeyServiceUnavailable):
            await key.wrap(PLACE, KEY)
        with pytest.raises(KeyServiceUnavailable):
            await key.unwrap(PLACE, b"vault:v1:AAAA")


@pytest.mark.parametrize(
    "answer",
    [
        (503, {"errors": ["Vault is sealed"]}),
        (500, {"errors": ["internal error"]}),
        (429, {"errors": ["too many"]}),
        (200, {"data": {}}),
        (200, {"data": {"plaintext": "no base64", "ciphertext": 7}}),
        (200, []),
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnot}",
        b"garbage\r\n\r\n",
    ],
    ids=["sealed", "broken", "busy", "empty", "odd", "no object", "no JSON", "no HTTP"],
)
async def test_an_answer_that_says_nothing_is_trouble_that_passes(answer: Any) -> None:
    with serving(ScriptedProvider()) as service:
        service.answers(answer)
        key = TransitKey(f"{service.url}/transit/key", TransitAccess(SecretStr("token")))
        with pytest.raises(KeyServiceUnavailable):
            await key.unwrap(PLACE, b"vault:v1:AAAA")
        with pytest.raises(KeyServiceUnavailable):
            await key.wrap(PLACE, KEY)


async def test_a_bad_request_without_a_reason_is_somebody_elses_and_not_what_was_altered() -> None:
    """What was altered may be given up; what a proxy refuses must not."""
    with serving(ScriptedProvider()) as service:
        key = TransitKey(f"{service.url}/transit/key", TransitAccess(SecretStr("token")))
        service.answers((400, {"errors": ["invalid ciphertext: could not be decrypted"]}))
        with pytest.raises(CannotOpenSealed):
            await key.unwrap(PLACE, b"vault:v1:AAAA")
        answers: list[Any] = [(400, {}), b"HTTP/1.1 400 Bad Request\r\ncontent-length: 4\r\n\r\nnope"]
        for answer in answers:
            service.answers(answer)
            with pytest.raises(MasterKeyRefused, match="400"):
                await key.unwrap(PLACE, b"vault:v1:AAAA")


async def test_the_token_follows_no_redirect_and_namespaces_are_named() -> None:
    with serving(ScriptedProvider()) as elsewhere, serving(ScriptedProvider()) as service:
        service.answers(json_answer(307, {}, location=f"{elsewhere.url}/v1/transit/encrypt/key"))
        key = TransitKey(f"{service.url}/a/b/key", TransitAccess(SecretStr("token"), namespace="team/"))
        with pytest.raises(MasterKeyRefused, match="307"):
            await key.wrap(PLACE, KEY)
        assert elsewhere.requests == []
        (request,) = service.requests
        assert request.path == "/v1/a/b/encrypt/key"
        assert (request.headers["x-vault-token"], request.headers["x-vault-namespace"]) == ("token", "team/")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("vault-transit:http://vault.example/transit/key", "https"),
        ("vault-transit:https://vault.example/key", "MOUNT/KEY"),
        ("vault-transit:https://vault.example/transit/../key?x=y", "MOUNT/KEY|query"),
        ("vault-transit:https://user:secret@vault.example/transit/key", "no user"),
        ("vault-transit:transit/key", "https|SERVER"),
        ("aws-kms:", "ARN"),
    ],
)
def test_an_entry_that_leads_nowhere_is_said_at_the_start(entry: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as error:
        read_master_keys(entry)
    assert "secret@" not in error.value.message


def test_without_the_extra_an_aws_key_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "evergrant.crypto.kms.aws", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'evergrant\[aws\]'"):
        read_master_keys("aws-kms:arn:aws:kms:eu-central-1:111122223333:key/k")
