"""What the pages of Settings have in common: who sees them, and which field is wrong."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Query
from fastapi.responses import HTMLResponse

from evergrant import clock
from evergrant.broker.operators.signed_in import RECENT
from evergrant.errors import InvalidRequest, PermissionDenied
from evergrant.web.console.desk import Desk

Saved = Annotated[str, Query(max_length=1, pattern="^1?$")]
"""Whether a form was just saved, so that the page says so."""


def require_admin(desk: Desk) -> None:
    """Check that an administrator asks.

    Raises:
        PermissionDenied: it is somebody else.
    """
    if not desk.who.is_admin:
        raise PermissionDenied("Only administrators see and change a project's settings.")


def require_admin_again(desk: Desk) -> None:
    """Check that an administrator asks who has signed in lately: for changes.

    Raises:
        PermissionDenied, SignInTooOld: it is somebody else, or too long ago.
    """
    require_admin(desk)
    desk.require_recent()


def settings_page(desk: Desk, template: str, *, wrong: Mapping[str, str] | None = None, **values: Any) -> HTMLResponse:
    """Answer with a page of Settings, which extends `console/settings_frame.html`; `wrong` says what is, by field."""
    wrong = wrong or {}
    is_recent = clock.now() - desk.who.signed_in_at <= RECENT
    values |= {"is_recent": is_recent, "wrong": wrong, "first": next(iter(wrong), "")}
    return desk.page(template, status=400 if wrong else 200, **values)


def problems_by_field(error: InvalidRequest) -> Mapping[str, str]:
    """Return what is wrong with each field of a form."""
    found: dict[str, str] = {}
    for entry in error.details.get("fields", ()):
        field = entry["field"]
        found[field] = f"{found[field]}; {entry['problem']}" if field in found else entry["problem"]
    return found
