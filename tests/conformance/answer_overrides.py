"""Other answers than the usual one of a conforming provider."""

from typing import Any
from urllib.parse import urlencode

from tests.conformance.conforming import Connection
from tests.infra.conformance_demands import AnswerOverride
from tests.infra.scripted import answer


def says(members: Any, status: int = 200) -> AnswerOverride:
    """Answer this in place of everything: nothing is issued, and no refresh token is used up."""
    return AnswerOverride(lambda _: (status, members), instead=True)


def says_in_a_form(**members: Any) -> AnswerOverride:
    """The same with a form, as some older endpoints answer."""
    body, kind = urlencode(members), "application/x-www-form-urlencoded; charset=utf-8"
    return AnswerOverride(lambda _: answer(200, body.encode(), kind), instead=True)


def but(**changes: Any) -> AnswerOverride:
    """Answer with other members; `...` leaves one out."""
    return AnswerOverride(lambda usual: {name: value for name, value in (usual | changes).items() if value is not ...})


LOST = AnswerOverride(lambda _: answer(502, b"gone"))
"""The refresh is made, and its answer is lost on the way."""


def then(connection: Connection, role: str, *overrides: AnswerOverride) -> Connection:
    """Let the provider answer so the next times."""
    connection.provider.overrides[role] += overrides
    return connection
