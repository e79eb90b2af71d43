"""Other answers than the usual one of a conforming provider."""

from typing import Any
from urllib.parse import urlencode

from starlette.responses import JSONResponse, Response

from tests.conformance.conforming import Connection
from tests.infra.conformance_demands import Twist


def says(members: Any, status: int = 200) -> Twist:
    """Answer this in place of everything: nothing is issued, and no refresh token is used up."""
    return Twist(lambda _: JSONResponse(members, status), instead=True)


def says_in_a_form(**members: Any) -> Twist:
    """The same with a form, as some older endpoints answer."""
    body, kind = urlencode(members), "application/x-www-form-urlencoded; charset=utf-8"
    return Twist(lambda _: Response(body, media_type=kind), instead=True)


def but(**changes: Any) -> Twist:
    """Answer with other members; `...` leaves one out."""
    return Twist(lambda answer: {name: value for name, value in (answer | changes).items() if value is not ...})


LOST = Twist(lambda _: Response("gone", 502))
"""The refresh is made, and its answer is lost on the way."""


def then(connection: Connection, role: str, *twists: Twist) -> Connection:
    """Let the provider answer so the next times."""
    connection.provider.twists[role] += twists
    return connection
