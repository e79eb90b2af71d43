"""What a fetch may ask for: the quick reader of usual bodies says what the documented model says, or leaves it be."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from evergrant.errors import InvalidRequest
from evergrant.web.api.tokens import CALLS, FetchCall

USUAL: dict[str, Any] = {"appId": "contacts", "userId": "alice", "tenantId": "acme", "scopes": ["b", "a", "b"]}
MISSING = object()
VALUES: dict[str, list[Any]] = {
    "appId": [
        MISSING,
        None,
        "",
        " contacts ",
        "a" * 64,
        "a" * 65,
        "a\u00a0",
        "\u200ba",
        "a b",
        "größe",
        "a\x00",
        1,
        True,
        [],
        {},
    ],
    "userId": [
        MISSING,
        None,
        "",
        " ",
        "al ice",
        "a" * 255,
        "a" * 256,
        "größe",
        "\ud800",
        "a\x00b",
        "\u202e",
        "a\n",
        7,
        [],
    ],
    "tenantId": [MISSING, None, "", " acme ", "t" * 256, "\x7f", False],
    "externalIdentifier": [None, "", "work", "w" * 256, " w", "\x00", 1],
    "scopes": [
        *(
            MISSING,
            None,
            [],
            "a",
            {},
            ["a b"],
            [""],
            [" a"],
            ["a\t"],
            ["ü"],
            ["\x00"],
            ["\ud800"],
            [None],
            [1],
            [["a"]],
        ),
        *(["s"] * 500, ["s"] * 501, ["s" * 10_000]),
    ],
    "options": [
        *(None, {}, [], "x", {"forceRefresh": False}, {"forceRefresh": True}, {"withRefreshToken": False}),
        *({"forceRefresh": None}, {"forceRefresh": 0}, {"forceRefresh": "false"}, {"minimumSeconds": 0}, {"other": 1}),
        {"minimumSeconds": 86_401},
    ],
    "app_id": ["contacts", 1],
    "user_id": ["bob"],
    "unknown": ["x", {"deep": [1]}],
}
RAW = [b"", b"{", b"[]", b"null", b'"text"', b"\xff", b'{"appId":"a","userId":"\xff"}', b'{"a":NaN}', b" {} ", b"{}x"]
RAW += [
    b'{"appId":"a","appId":"b","userId":"u","tenantId":"t","scopes":[]}',
    b'{"appId":"\\ud83d\\ude00","userId":"u"}',
]


def bodies() -> Iterator[bytes]:
    yield from RAW
    yield json.dumps(USUAL).encode()
    for name, values in VALUES.items():
        for value in values:
            yield as_json({**USUAL, name: value})
    for (one, first), (other, second) in itertools.combinations(
        [(n, v) for n, vs in VALUES.items() for v in vs[:4]], 2
    ):
        yield as_json({**USUAL, one: first, other: second})


def as_json(members: dict[str, Any]) -> bytes:
    return json.dumps({name: value for name, value in members.items() if value is not MISSING}).encode()


def read(how: Any, body: bytes) -> object:
    """What a reader makes of a body: what is asked for, or the whole complaint."""
    try:
        return how(body)
    except InvalidRequest as error:
        return type(error), error.message, error.details


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_quick_reader_says_what_the_model_says(call: FetchCall) -> None:
    for body in bodies():
        assert read(call.wanted, body) == read(call.read, body), body


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_the_documentation_shows_is_read_quickly(call: FetchCall) -> None:
    members = {alias for field in call.model.model_fields.values() if (alias := field.alias)}
    body = {name: value for name, value in USUAL.items() if name in members}
    for options in ({}, {"options": {"forceRefresh": False, "withRefreshToken": False}}):
        assert call.usual(json.dumps(body | options).encode()) is not None
