"""Keys and ciphertexts: what opens where, and what an operator is told when it does not."""

import base64
import dataclasses

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evergrant.crypto.keyring import DataKey, Keyring, WrappedDataKey, data_key_id
from evergrant.crypto.kms.local import new_master_key
from evergrant.crypto.kms.master_key import id_of
from evergrant.crypto.kms.sources import read_master_keys
from evergrant.crypto.sealed import Sealed, Slot
from evergrant.errors import CannotOpenSealed, ConfigurationError

SLOT = Slot("project", "grants", "access_token", "row")
SECRET = "the plaintext"
IDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SLOTS = st.builds(Slot, IDS, IDS, IDS, IDS, st.lists(IDS, max_size=3).map(tuple))


def ring(*keys: str) -> Keyring:
    return Keyring(read_master_keys(",".join(keys or (new_master_key(),))))


async def new_data_key() -> DataKey:
    keyring = ring()
    return await keyring.unwrap(await keyring.new_data_key("project"))


async def test_a_sealed_value_opens_in_its_place() -> None:
    key = await new_data_key()
    assert key.open(SLOT, key.seal(SLOT, SECRET)) == SECRET


async def test_the_same_value_is_never_sealed_the_same_way_twice() -> None:
    key = await new_data_key()
    assert len({key.seal(SLOT, SECRET).ciphertext for _ in range(100)}) == 100


@pytest.mark.parametrize("field", ["project_id", "table", "column", "row_id"])
async def test_a_sealed_value_does_not_open_elsewhere(field: str) -> None:
    key = await new_data_key()
    sealed = key.seal(SLOT, SECRET)
    elsewhere = dataclasses.replace(SLOT, **{field: "another"})  # type: ignore[arg-type]  # all of them are texts
    with pytest.raises(CannotOpenSealed):
        key.open(elsewhere, sealed)


@given(SLOTS, SLOTS)
@example(Slot("p", "grants", "access_token", "row"), Slot("pgrants", "", "access_token", "row"))
@example(Slot("p", "grants", "access_token", "1row"), Slot("p", "grants", "access_token1", "row"))
@example(Slot("p", "grants", "id_token", "row", ("app", "")), Slot("p", "grants", "id_token", "row", ("", "app")))
def test_no_two_places_look_alike_to_the_cipher(one: Slot, other: Slot) -> None:
    assert (one == other) == (one.associated_data() == other.associated_data())


async def test_a_sealed_value_opens_for_what_it_was_bound_to_only() -> None:
    key = await new_data_key()
    slot = dataclasses.replace(SLOT, bound=("app", "alice"))
    sealed = key.seal(slot, SECRET)
    assert key.open(slot, sealed) == SECRET
    for bound in ((), ("app", "mallory"), ("app",), ("alice", "app"), ("app", "alice", "")):
        with pytest.raises(CannotOpenSealed):
            key.open(dataclasses.replace(SLOT, bound=bound), sealed)


async def test_a_data_key_of_an_earlier_version_opens_what_it_sealed_without_an_owner() -> None:
    (master,) = read_master_keys(new_master_key())
    place = Slot("project", "data_keys", "wrapped", "00" * 8)
    old = WrappedDataKey("00" * 8, "project", master.id, await master.wrap(place, bytes(32)), binds_owner=False)
    sealed = DataKey("00" * 8, bytes(32), binds_owner=False).seal(SLOT, SECRET)
    key = await Keyring([master]).unwrap(old)
    assert key.open(dataclasses.replace(SLOT, bound=("app", "alice")), sealed) == SECRET
    with pytest.raises(CannotOpenSealed):  # nobody can say later that it binds
        await Keyring([master]).unwrap(dataclasses.replace(old, binds_owner=True))


async def test_an_altered_bit_anywhere_is_noticed() -> None:
    key = await new_data_key()
    whole = key.seal(SLOT, SECRET).ciphertext
    for position in range(len(whole)):
        altered = bytearray(whole)
        altered[position] ^= 1
        sealed = Sealed(bytes(altered))

        def open_as_the_vault_does(sealed: Sealed = sealed) -> None:
            if data_key_id(sealed) != key.id:
                raise CannotOpenSealed  # the vault finds no such key
            key.open(SLOT, sealed)

        with pytest.raises(CannotOpenSealed):
            open_as_the_vault_does()


@pytest.mark.parametrize("length", [0, 1, 9, 20, 21])
async def test_a_truncated_value_is_noticed(length: int) -> None:
    sealed = (await new_data_key()).seal(SLOT, SECRET)
    with pytest.raises(CannotOpenSealed):
        data_key_id(Sealed(sealed.ciphertext[:length]))


async def test_the_first_master_key_wraps_and_all_of_them_unwrap() -> None:
    old, new = new_master_key(), new_master_key()
    wrapped = await ring(old).new_data_key("project")
    both = ring(new, old)
    assert (await both.unwrap(wrapped)).id == wrapped.id
    assert wrapped.master_key_id != both.first_id
    assert (await both.new_data_key("project")).master_key_id == both.first_id


async def test_a_rewrapped_data_key_opens_what_it_sealed_and_lets_the_old_master_key_go() -> None:
    old, new = new_master_key(), new_master_key()
    wrapped = await ring(old).new_data_key("project")
    sealed = (await ring(old).unwrap(wrapped)).seal(SLOT, SECRET)
    rewrapped = await ring(new, old).rewrap(wrapped)
    assert (await ring(new).unwrap(rewrapped)).open(SLOT, sealed) == SECRET


async def test_a_missing_master_key_is_named_by_its_id() -> None:
    key = new_master_key()
    wrapped = await ring(key).new_data_key("project")
    with pytest.raises(CannotOpenSealed, match=id_of(base64.b64decode(key))):
        await ring().unwrap(wrapped)


@pytest.mark.parametrize(
    "change", [{"project_id": "another"}, {"id": "00" * 8}, {"wrapped": b"\x00" * 60}, {"binds_owner": False}]
)
async def test_a_wrapped_data_key_that_was_moved_or_altered_does_not_unwrap(change: dict[str, object]) -> None:
    keyring = ring()
    wrapped = await keyring.new_data_key("project")
    with pytest.raises(CannotOpenSealed):
        await keyring.unwrap(dataclasses.replace(wrapped, **change))  # type: ignore[arg-type]  # one of its fields


@pytest.mark.parametrize("separator", [",", "\n", " , ", ",\n"])
def test_master_keys_may_stand_on_lines_or_behind_commas(separator: str) -> None:
    first, second = new_master_key(), new_master_key()
    assert read_master_keys(f"{first}{separator}{second}\n")[0].id == id_of(base64.b64decode(first))


def test_url_safe_base64_is_the_same_key() -> None:
    raw = b"\xfb\xff" * 16
    assert read_master_keys(base64.urlsafe_b64encode(raw).decode())[0].id == id_of(raw)


@pytest.mark.parametrize("bad", ["not base64!", base64.b64encode(bytes(31)).decode(), "aGVsbG8="])
def test_a_malformed_master_key_is_named_by_its_number_never_by_its_text(bad: str) -> None:
    with pytest.raises(ConfigurationError, match="key 2") as error:
        ring(new_master_key(), bad)
    assert bad not in error.value.message


def test_no_master_key_at_all_is_said() -> None:
    with pytest.raises(ConfigurationError, match="EVERGRANT_MASTER_KEYS"):
        read_master_keys(" , ")


async def test_nothing_that_holds_a_key_or_a_ciphertext_prints_it() -> None:
    text = new_master_key()
    keyring = ring(text)
    wrapped = await keyring.new_data_key("project")
    key = await keyring.unwrap(wrapped)
    sealed = key.seal(SLOT, SECRET)
    printed = repr([keyring, wrapped, key, sealed]) + f"{keyring} {wrapped} {key} {sealed}"
    for secret in (base64.b64decode(text), wrapped.wrapped, sealed.ciphertext):
        assert repr(secret)[2:-1] not in printed
        assert base64.b64encode(secret).decode() not in printed
    assert repr(sealed) == "<sealed>"
