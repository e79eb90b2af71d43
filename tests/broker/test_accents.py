"""Accents: what people can read, and what is offered where they cannot."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evergrant.broker.projects.accents import (
    GROUNDS,
    USUAL,
    contrast,
    ink_on,
    is_readable,
    nearest_readable,
    shades_of,
)

TOKENS = Path(__file__).parents[2] / "src/evergrant/web/static/tokens.css"
COLOURS = st.integers(0, 0xFFFFFF).map(lambda number: f"#{number:06x}")
MODES = st.sampled_from(["light", "dark"])


def said_in(block: str, name: str) -> str:
    found = re.search(rf"--{name}: (#\w+);", block)
    assert found, name
    return found[1]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("#000000", "#ffffff", 21.0),
        ("#777777", "#ffffff", 4.48),
        ("#ff0000", "#ffffff", 4.0),
        ("#abcdef", "#abcdef", 1),
    ],
)
def test_contrast_is_that_of_the_guidelines(one: str, other: str, expected: float) -> None:
    assert contrast(one, other) == pytest.approx(contrast(other, one)) == pytest.approx(expected, abs=0.01)


@given(COLOURS, MODES)
@settings(max_examples=100, deadline=None)
def test_what_is_offered_can_be_read_and_keeps_what_could_be_read_before(colour: str, mode: str) -> None:
    nearest = nearest_readable(colour, mode)
    assert contrast(nearest, ink_on(nearest, mode)) >= 4.5
    assert contrast(nearest, GROUNDS[mode].surface) >= 3
    assert nearest == colour or not is_readable(colour, mode)


@given(COLOURS, MODES)
@settings(max_examples=100, deadline=None)
def test_every_shade_that_follows_can_be_read_too(colour: str, mode: str) -> None:
    shades = shades_of(nearest_readable(colour, mode), mode)
    ground, text = GROUNDS[mode], "#13201d" if mode == "light" else "#e6eeeb"
    assert contrast(shades.hover, shades.ink) >= 4.5
    assert min(contrast(shades.link, ground.surface), contrast(shades.link, ground.page)) >= 4.5
    assert contrast(text, shades.wash) >= 4.5


def test_the_nearest_of_a_bright_yellow_is_a_darker_yellow() -> None:
    assert nearest_readable("#ffcc00", "light") == "#b28f00"
    assert nearest_readable("#ffcc00", "dark") == "#ffcc00"


def test_the_colours_it_stands_on_are_those_of_the_pages() -> None:
    light, _, dark = TOKENS.read_text().partition("@media (prefers-color-scheme: dark)")
    for mode, block in (("light", light), ("dark", dark)):
        ground = GROUNDS[mode]
        assert (ground.surface, ground.page) == (said_in(block, "surface"), said_in(block, "bg"))
        assert (USUAL[mode]) == said_in(block, "accent")
        assert ground.ink == said_in(block, "ink" if mode == "light" else "accent-ink")
