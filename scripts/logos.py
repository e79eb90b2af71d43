"""Draws the logos of the app library anew, out of a folder with the npm package simple-icons (CC0).

    npm pack simple-icons && tar xf simple-icons-*.tgz && .venv/bin/python -m scripts.logos package

An entry gets the icon of its own name, or the one that `OF_THE_SAME` says. What stands in parentheses does not count.
Look at the list that is printed before you commit: a wrong logo is worse than two letters.
"""

import argparse
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evergrant.broker.projects.accents import contrast
from evergrant.catalog.loader import load_catalogue
from evergrant.catalog.template import Template

LOGOS = Path(__file__).parents[1] / "src/evergrant/web/static/logos"
OF_THE_SAME = {
    "dropbox-sign": "Dropbox",
    "fathom": "",  # the icon of that name is another Fathom's
    "fathom-oauth": "",
    "google-contacts": "Google",
    "google-health": "Google",
    "sage-intacct-oauth": "Sage",
    "mailchimp": "MailChimp",
    "snapchat": "Snapchat",
    "sage": "Sage",
    "google-maps": "Google Maps",
    "stripe": "Stripe",
    "stripe-app": "Stripe",
    "twitter-v2": "X",
    "wordpress": "WordPress",
    "squareup": "Square",
    "tiktok-ads": "TikTok",
    "zendesk-sell": "Zendesk",
    "zoho-books": "Zoho",
    "zoho-crm": "Zoho",
}
"""Entries whose icon has another name: their product's, or that of whose product they are; empty for none."""
WHITE, BLACK = "#ffffff", "#000000"
FAINT = 1.7
"""Below this contrast with a white tile, an icon is drawn in black on its colour."""


@dataclass(frozen=True)
class Icon:
    """One icon of the package."""

    title: str
    colour: str
    path: str


def main() -> int:
    """Draw every logo, and print which icon each entry got."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="the unpacked package")
    icons = read_icons(parser.parse_args().package)
    for old in LOGOS.glob("*.svg"):
        old.unlink()
    found = {entry.id: icon for entry in load_catalogue().values() if (icon := icon_of(entry, icons)) is not None}
    for entry_id, icon in found.items():
        (LOGOS / f"{entry_id}.svg").write_text(drawn(icon) + "\n", encoding="utf-8")
        print(f"{entry_id:28} {icon.title}")
    print(f"{len(found)} of {len(load_catalogue())} entries have a logo")
    return 0


def read_icons(package: Path) -> Mapping[str, Icon]:
    """Return the icons by the plain forms of their titles; only those that are under CC0 like the package itself."""
    icons: dict[str, Icon] = {}
    entries: list[dict[str, Any]] = json.loads((package / "data/simple-icons.json").read_text(encoding="utf-8"))
    for entry in entries:
        if entry.get("license", {}).get("type", "CC0-1.0") != "CC0-1.0":
            continue
        text = (package / f"icons/{entry['slug']}.svg").read_text(encoding="utf-8")
        path = re.search(r'<path d="([^"]+)"/>', text)
        if path is not None:
            icons[plain(entry["title"])] = Icon(entry["title"], f"#{entry['hex'].lower()}", path[1])
    return icons


def icon_of(entry: Template, icons: Mapping[str, Icon]) -> Icon | None:
    """Return the icon that is an entry's."""
    name = OF_THE_SAME.get(entry.id, entry.name)
    return icons.get(plain(name))


def plain(name: str) -> str:
    """Return a name as it is compared: lower case, letters and digits, without what stands in parentheses."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"\(.*?\)", "", name.lower()))


def drawn(icon: Icon) -> str:
    """Return the picture: the icon in its colour, for a white tile."""
    if contrast(icon.colour, WHITE) >= FAINT:
        inner = f'<path fill="{icon.colour}" d="{icon.path}"/>'
    else:
        ground = f'<rect width="24" height="24" rx="5" fill="{icon.colour}"/>'
        inner = f'{ground}<path fill="{BLACK}" transform="translate(4 4) scale(.6667)" d="{icon.path}"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24">{inner}</svg>'


if __name__ == "__main__":
    raise SystemExit(main())
