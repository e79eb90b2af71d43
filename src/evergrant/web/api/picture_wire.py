"""Pictures in JSON: their content in Base64."""

import base64
from typing import Annotated

from pydantic import Field

from evergrant.broker.projects.pictures import MAX_BYTES
from evergrant.errors import InvalidValue
from evergrant.web.api.wire import PastedText

EXAMPLE_PICTURE = "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQAQAAAAA3iMLMAAAADklEQVR42mP4/5+BFAQA/U4f4d7IdZcAAAAASUVORK5CYII="
"""A white square of 16 by 16 pixels, as PNG."""
PictureText = Annotated[
    PastedText,
    Field(
        max_length=MAX_BYTES * 2,
        description="A PNG, JPEG or WebP of at most 256 KB, in Base64 (RFC 4648 section 4); empty removes it.",
    ),
]


def picture_of(content: str) -> bytes | None:
    """Return what a field has; None for an empty one.

    Raises:
        InvalidValue: it is no Base64.
    """
    if not content:
        return None
    try:
        return base64.b64decode(content, validate=True)
    except ValueError:  # also of characters that no Base64 has
        raise InvalidValue.of(("logo", "send the picture in Base64")) from None
