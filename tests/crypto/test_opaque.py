"""Strings that evergrant issues and recognises again."""

import re

from hypothesis import given
from hypothesis import strategies as st

from evergrant.crypto.opaque import digest, equal, is_management_key, new_id, new_management_key, new_opaque


def test_a_management_key_has_a_form_that_scanners_know() -> None:
    key = new_management_key("k1")
    assert re.fullmatch(r"evg_k1_[A-Za-z0-9]{49}", key)
    assert is_management_key(key)


@given(st.integers(0, 55), st.sampled_from("aZ0"))
def test_a_mistyped_management_key_fails_its_checksum(position: int, letter: str) -> None:
    key = new_management_key("k1")
    mistyped = key[:position] + letter + key[position + 1 :]
    assert is_management_key(mistyped) == (mistyped == key)


def test_what_is_issued_is_never_issued_twice() -> None:
    assert len({new_opaque() for _ in range(1_000)}) == 1_000
    assert len({new_id() for _ in range(1_000)}) == 1_000
    assert len(new_opaque()) == 43


def test_digests_compare_by_content() -> None:
    assert equal(digest("a"), digest("a"))
    assert not equal(digest("a"), digest("b"))
