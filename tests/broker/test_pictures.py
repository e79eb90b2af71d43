"""Uploads: taken for what their content is, and only pictures that are safe to show."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evergrant.broker.projects.pictures import MAX_BYTES, check_picture
from evergrant.errors import InvalidValue
from tests.infra.pictures import jpeg, png, webp


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (png(), "image/png"),
        (jpeg(), "image/jpeg"),
        (webp(b"VP8 "), "image/webp"),
        (webp(b"VP8L"), "image/webp"),
        (webp(b"VP8X", 2048, 16), "image/webp"),
        (png(16, 2048), "image/png"),
    ],
)
def test_a_picture_is_taken_for_what_it_is(content: bytes, media_type: str) -> None:
    assert check_picture(content, field="logo").media_type == media_type


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "PNG, JPEG or WebP"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "PNG, JPEG or WebP"),
        (b"GIF89a" + b"\x40\x00" * 40, "PNG, JPEG or WebP"),
        (b"<!doctype html>" + png(), "PNG, JPEG or WebP"),
        (png()[:20], "PNG, JPEG or WebP"),
        (jpeg()[:8], "PNG, JPEG or WebP"),
        (webp(b"VP8X")[:22], "PNG, JPEG or WebP"),
        (png(1, 1), "1 by 1 pixels"),
        (jpeg(64, 4000), "64 by 4000 pixels"),
        (webp(b"VP8L", 4000, 64), "4000 by 64 pixels"),
        (png() + b"\x00" * MAX_BYTES, "at most 256 KB"),
    ],
)
def test_anything_else_is_refused_and_the_field_named(content: bytes, problem: str) -> None:
    with pytest.raises(InvalidValue, match=problem) as refused:
        check_picture(content, field="logo")
    assert refused.value.details["fields"][0]["field"] == "logo"


@given(st.sampled_from([png()[:16], b"\xff\xd8\xff", b"RIFF1234WEBPVP8X", b"RIFF1234WEBPVP8L", b""]), st.binary())
@settings(max_examples=300, deadline=None)
def test_whatever_is_sent_the_check_ends_with_a_word_about_the_field(beginning: bytes, rest: bytes) -> None:
    with contextlib.suppress(InvalidValue):
        check_picture(beginning + rest, field="logo")
