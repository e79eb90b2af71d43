"""Pages: Jinja templates with autoescape, strict headers, and only scripts of our own."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context, select_autoescape
from jinja2.runtime import Context
from markupsafe import Markup

from evergrant.web import locale, words
from evergrant.web.static_files import static_url
from evergrant.web.tiles import tile_of

FOLDER = Path(__file__).parent
ICONS = FOLDER / "icons"

# No form-action: browsers apply it to every redirect that follows a form, and the consent form's goes to a provider,
# which may send the browser on to hosts that nobody can list. No script runs here that could make forms of its own.
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'"
    ),
    # Not "no-referrer": with that, browsers send "Origin: null" along with our own forms.
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
"""Headers of the visitors' pages, which run no script."""


@cache
def _drawing(name: str) -> Markup:
    """Return what an icon draws: an operator's page repeats it nowhere, so each is written once, as a symbol."""
    text = (ICONS / f"{name}.svg").read_text(encoding="utf-8")
    inner = re.search(r"<svg[^>]*>(.*)</svg>", text, re.DOTALL)
    assert inner is not None, name  # noqa: S101 - our own files
    return Markup(" ".join(inner[1].split()))  # noqa: S704 - our own files


@pass_context
def icon(context: Context, name: str) -> Markup:
    """Draw an icon. It says nothing by itself: what it means stands beside it, or in the button's label."""
    used: dict[str, Markup] = context["icons_used"]
    used[name] = _drawing(name)
    return Markup('<svg class="i" aria-hidden="true"><use href="#i-{}"/></svg>').format(name)


@pass_context
def icon_symbols(context: Context) -> Markup:
    """Write down the icons that the page has used; the last thing in its body."""
    used: dict[str, Markup] = context["icons_used"]
    symbols = Markup("").join(
        Markup('<symbol id="i-{}" viewBox="0 0 24 24">{}</symbol>').format(name, drawing)
        for name, drawing in used.items()
    )
    return Markup('<svg hidden aria-hidden="true">{}</svg>').format(symbols) if used else Markup("")


def _make_environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    environment.install_gettext_callables(locale.gettext, locale.ngettext, newstyle=True)  # type: ignore[attr-defined]  # the extension's
    environment.globals.update(icon=icon, icon_symbols=icon_symbols, static_url=static_url, tile_of=tile_of)
    environment.filters.update(words.FILTERS)
    return environment


_environment = _make_environment()


def render(name: str, **values: Any) -> str:
    """Render a template to text."""
    return _environment.get_template(name).render(icons_used={}, **values)


def page(name: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any) -> HTMLResponse:
    """Render a template as a visitor's page."""
    return HTMLResponse(render(name, **values), status, {**PAGE_HEADERS, **(headers or {})})
