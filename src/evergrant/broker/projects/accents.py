"""Accents: whether people can read a colour, the nearest one that they can read, and the shades that follow from it.

Contrast is that of WCAG 2.2: 4.5:1 for text, 3:1 for the edges and surfaces of controls.
"""

import colorsys
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

TEXT, EDGE = 4.5, 3.0
COLOUR = re.compile(r"#[0-9a-f]{6}")
WHITE = "#ffffff"
STEPS = 200
"""In how many steps of lightness the nearest colour is looked for."""
_Channels = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Ground:
    """What an accent stands on, in one of the two modes."""

    surface: str
    page: str
    """What surfaces lie on."""
    ink: str
    """The dark ink that a light accent carries."""


GROUNDS: Mapping[str, Ground] = MappingProxyType(
    {
        "light": Ground(surface=WHITE, page="#f4f7f6", ink="#13201d"),
        "dark": Ground(surface="#151d1b", page="#0e1413", ink="#04211c"),
    }
)
"""By mode; the same colours as in `web/static/tokens.css`, which a test holds together."""
USUAL: Mapping[str, str] = MappingProxyType({"light": "#0f766e", "dark": "#2fcbb5"})
"""evergrant's own accents."""


@dataclass(frozen=True, slots=True)
class Shades:
    """An accent and what follows from it."""

    accent: str
    hover: str
    """Under a pointer: still readable with the ink."""
    ink: str
    """What is written on the accent."""
    link: str
    """The accent as text on surface and page, which takes more contrast than an edge."""
    wash: str
    """Behind what is chosen."""


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, from 1 to 21."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def ink_on(accent: str, mode: str) -> str:
    """Return what is written on an accent: white or the mode's dark ink, whichever reads better."""
    return max((WHITE, GROUNDS[mode].ink), key=lambda ink: contrast(accent, ink))


def is_readable(accent: str, mode: str) -> bool:
    """Tell whether an accent reads with its ink, and stands out from the surface."""
    on_surface = contrast(accent, GROUNDS[mode].surface)
    return contrast(accent, ink_on(accent, mode)) >= TEXT and on_surface >= EDGE


def nearest_readable(accent: str, mode: str) -> str:
    """Return the accent itself if it is readable, or the readable colour of its hue that is nearest in lightness."""
    return next(colour for colour in _by_distance(accent) if is_readable(colour, mode))


def shades_of(accent: str, mode: str) -> Shades:
    """Return what follows from an accent that is readable."""
    ground, ink = GROUNDS[mode], ink_on(accent, mode)
    away = -0.06 if ink == WHITE else 0.06  # away from the ink, so that the contrast only grows
    text = (colour for colour in _by_distance(accent) if _reads_on(colour, ground))
    return Shades(
        accent=accent,
        hover=_lighter(accent, away),
        ink=ink,
        link=next(text),
        wash=_mixed(accent, ground.surface, 0.12 if mode == "light" else 0.2),
    )


def _reads_on(colour: str, ground: Ground) -> bool:
    return min(contrast(colour, ground.surface), contrast(colour, ground.page)) >= TEXT


def _by_distance(colour: str) -> Iterator[str]:
    """Yield a colour in every lightness, the nearest first; of two that are as near, the darker."""
    yield colour
    for step in range(1, STEPS + 1):
        yield _lighter(colour, -step / STEPS)
        yield _lighter(colour, step / STEPS)


def _lighter(colour: str, distance: float) -> str:
    hue, lightness, saturation = colorsys.rgb_to_hls(*_channels(colour))
    return _colour_of(colorsys.hls_to_rgb(hue, min(1.0, max(0.0, lightness + distance)), saturation))


def _mixed(colour: str, ground: str, share: float) -> str:
    red, green, blue = (
        one * share + other * (1 - share) for one, other in zip(_channels(colour), _channels(ground), strict=True)
    )
    return _colour_of((red, green, blue))


def _channels(colour: str) -> _Channels:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def _colour_of(channels: _Channels) -> str:
    return "#" + "".join(f"{round(channel * 255):02x}" for channel in channels)


def _luminance(colour: str) -> float:
    red, green, blue = (
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in _channels(colour)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
