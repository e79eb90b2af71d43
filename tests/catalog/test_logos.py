"""The logos of the app library: pictures and nothing else, each of an entry that there is."""

import re
from pathlib import Path

from evergrant.web.logos import template_logo
from evergrant.web.tiles import tile_of
from tests.infra.entries import read_entries

LOGOS = Path(__file__).parents[2] / "src/evergrant/web/static/logos"


def test_each_logo_is_of_an_entry_and_draws_paths_alone() -> None:
    known, found = set(read_entries()), sorted(LOGOS.glob("*.svg"))
    assert len(found) > 100
    for path in found:
        assert path.stem in known
        assert set(re.findall(r"<(/?\w+)", path.read_text())) <= {"svg", "/svg", "path", "rect"}, path.name
    assert sum(path.stat().st_size for path in found) < 1_000 * len(found)


def test_an_entry_has_its_logo_or_none() -> None:
    assert template_logo("gitlab").startswith("/static/logos/gitlab.svg?v=")
    assert [template_logo(name) for name in ("", "nothing", "../icon", "LICENSE")] == [""] * 4


def test_an_app_without_a_logo_has_two_letters_on_a_colour_of_its_own() -> None:
    assert tile_of("calendar", "Team Calendar").letters == "TC"
    assert tile_of("calendar", "Team Calendar").hue == tile_of("calendar", "Another name").hue
