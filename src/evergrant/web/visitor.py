"""Visitors' pages: in the visitor's language, in the project's look, and with a way back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse

from evergrant.db import Project
from evergrant.errors import EvergrantError
from evergrant.logs import request_id
from evergrant.web import locale
from evergrant.web.failures import Failure, failure_of
from evergrant.web.templating import page


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a visitor's page shows of its project."""

    logo_src: str
    """Empty: the project's letters."""
    theme_href: str
    """A stylesheet that comes behind `tokens.css`; empty: evergrant's own colours."""
    sentence: str
    privacy_url: str
    help_url: str
    footer: bool
    """Whether the page says that evergrant keeps the connections."""
    mode: str
    """`light`, `dark` or `both`. The theme says it too, so that a page need not."""
    locale: str
    """For visitors whose language evergrant does not speak."""


@dataclass(slots=True)
class Visit:
    """What is known of whose page a request gets, for pages about errors too."""

    project: str = ""
    locale: str = ""
    back: str = ""
    """Where the application takes its user back; empty where nobody may be sent there from here."""
    look: Look | None = None


def note_visit(request: Request, project: Project, look: Look, *, locale: str = "") -> Visit:
    """Keep whose page a request gets, and in which language; empty for the browser's."""
    visit = Visit(project=project.name, locale=locale, look=look)
    request.state.visit = visit
    return visit


def visitor_page(
    request: Request, name: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any
) -> HTMLResponse:
    """Render a template of `visitor/` in the language of the visitor."""
    visit = getattr(request.state, "visit", None) or Visit()
    accepted = request.headers.get("accept-language", "")
    language = locale.chosen(visit.locale, accepted, visit.look.locale if visit.look else "")
    spoken = {"Content-Language": language, "Vary": "Accept-Language", **(headers or {})}
    with locale.speaking(language):
        return page(
            f"visitor/{name}", status=status, headers=spoken, language=language, look=visit.look, visit=visit, **values
        )


def failure_page(
    request: Request,
    failure: Failure,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    why: str = "",
) -> HTMLResponse:
    """Say that something did not work. `why` is for whoever can mend it, in English."""
    return visitor_page(
        request,
        "failure.html",
        status=status,
        headers=headers,
        failure=failure,
        why=why,
        can_try_again=status == 503 and request.method == "GET",
        # For its own bugs alone: to whom it answers that nothing is there, there is no console.
        is_console=status >= 500 and request.scope["path"].startswith("/console/"),
        reference=request_id.get(),
    )


def error_page(request: Request, error: EvergrantError, headers: Mapping[str, str]) -> HTMLResponse:
    """Answer with what went wrong."""
    failure = failure_of(error)
    why = error.message if failure.says_why else ""
    return failure_page(request, failure, status=error.status, headers=headers, why=why)
