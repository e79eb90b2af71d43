"""Pages: Jinja templates with autoescape, strict headers, and not one line of script."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

FOLDER = Path(__file__).parent
STATIC = FOLDER / "static"

_environment = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=select_autoescape(default=True, default_for_string=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

# No form-action: browsers apply it to every redirect that follows a form, and the consent form's goes to a provider,
# which may send the browser on to hosts that nobody can list. No script runs here that could make forms of its own.
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' https: data:; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}


def page(name: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any) -> HTMLResponse:
    """Render a template."""
    html = _environment.get_template(name).render(**values)
    return HTMLResponse(html, status, {**PAGE_HEADERS, **(headers or {})})


def message_page(
    title: str, text: str, *, good: bool, status: int = 200, headers: Mapping[str, str] | None = None
) -> HTMLResponse:
    """Render a page that says one thing."""
    return page("message.html", status=status, headers=headers, title=title, text=text, good=good)
