"""A project's theme: a stylesheet that says nothing but what the custom properties of `tokens.css` are.

The pages' policy forbids inline style, so a stylesheet is the only way to colour them, and it can do nothing else.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response

from evergrant.broker.projects.accents import shades_of
from evergrant.broker.projects.branding import Brand, Looks, brand_of
from evergrant.errors import NotFound
from evergrant.web.deps import BrokerDep, counting_failures, refuse_odd_text
from evergrant.web.static_files import FOR_A_WHILE, FOR_EVER, STATIC

router = APIRouter(include_in_schema=False, dependencies=[Depends(refuse_odd_text)])

ProjectPath = Annotated[str, Path(max_length=31, pattern=r"^[A-Za-z0-9_-]+$")]
Version = Annotated[str, Query(alias="v", max_length=64, pattern=r"^[!-~]*$")]
CORNERS: Mapping[str, tuple[str, str, str]] = {
    "square": ("0", "0", "0"),
    "soft": ("6px", "8px", "12px"),
    "round": ("10px", "18px", "22px"),
}
"""The radii of small things, of controls, and of cards."""


def theme_href(project_id: str, brand: Brand) -> str:
    """Return the address of a project's theme, which changes with it; empty where there is none."""
    return f"/theme/{quote(project_id, safe='')}.css?v={brand.version}" if brand.version else ""


@router.get("/theme/{project}.css")
async def theme(project: ProjectPath, request: Request, broker: BrokerDep, version: Version = "") -> Response:
    """Answer with a project's theme."""
    async with counting_failures(request):
        brand = await brand_of(broker, project)
        if not brand.version:
            raise NotFound
    kept = FOR_EVER if version == brand.version else FOR_A_WHILE
    return Response(stylesheet(brand.looks), media_type="text/css", headers={"Cache-Control": kept})


def stylesheet(looks: Looks) -> str:
    """Write the theme of pages. It comes behind `tokens.css` and weighs as much as its rule for the dark."""
    if looks.mode != "both":
        return _rule(":root:root", f"color-scheme: {looks.mode}", _every(looks, looks.mode))
    light = _rule(":root:root", "color-scheme: light dark", {**_shades(looks, "light"), **_radii(looks)})
    return light + "@media (prefers-color-scheme: dark) {\n" + _rule(":root:root", "", _shades(looks, "dark")) + "}\n"


def preview_stylesheet(looks: Looks) -> str:
    """Write the theme for the parts of a console's page that show both modes side by side."""
    return "".join(_rule(f".themed.{mode}", f"color-scheme: {mode}", _every(looks, mode)) for mode in ("light", "dark"))


def _rule(selector: str, first: str, properties: Mapping[str, str]) -> str:
    lines = [first] if first else []
    lines += [f"--{name}: {value}" for name, value in properties.items()]
    return f"{selector} {{ {'; '.join(lines)} }}\n"


def _every(looks: Looks, mode: str) -> dict[str, str]:
    return {**_colours()[mode], **_shades(looks, mode), **_radii(looks)}


def _shades(looks: Looks, mode: str) -> dict[str, str]:
    shades = shades_of(looks.accent(mode), mode)
    return {
        "accent": shades.accent,
        "accent-hover": shades.hover,
        "accent-ink": shades.ink,
        "link": shades.link,
        "link-hover": shades.link,
        "wash": shades.wash,
    }


def _radii(looks: Looks) -> dict[str, str]:
    return dict(zip(("r1", "r2", "r3"), CORNERS[looks.corners], strict=True))


@cache
def _colours() -> Mapping[str, Mapping[str, str]]:
    """Return the colours of `tokens.css` by mode: all that it says otherwise for the dark."""
    text = (STATIC / "tokens.css").read_text(encoding="utf-8")
    light, dark = (dict(re.findall(r"--([a-z0-9-]+): ([^;]+);", block)) for block in _blocks(text))
    return {"light": {name: light[name] for name in dark}, "dark": dark}


def _blocks(text: str) -> tuple[str, str]:
    before, _, behind = text.partition("@media (prefers-color-scheme: dark)")
    return before, behind.partition("}")[0]
