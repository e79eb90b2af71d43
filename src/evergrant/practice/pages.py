"""Pages: templates without inline script or style, and the headers that go with them."""

from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.staticfiles import StaticFiles

HERE = Path(__file__).parent
TEMPLATES = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(template: str, *, status: int = 200, form_action: str | None = None, **values: Any) -> HTMLResponse:
    """Render `template`.

    `form_action` limits where the page's forms may lead, redirects included, as CSP counts them.
    """
    policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'"
    policy += "; frame-ancestors 'none'; base-uri 'none'"
    if form_action is not None:
        policy += f"; form-action {form_action}"
    return HTMLResponse(
        TEMPLATES.get_template(template).render(values),
        status,
        {
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "Referrer-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
        },
    )


def static_files() -> StaticFiles:
    """Serve the stylesheets and the script; the colours and sizes are those of evergrant's own pages."""
    return StaticFiles(directory=HERE / "static", packages=[("evergrant.web", "static")])
