"""What people paste: with it come the blanks, line breaks and invisible marks of the page that it was copied from."""

# White space of every kind, and the marks that take no room: byte order, zero width, reading direction. Named one by
# one, because an emoji may end with a character of the same category.
_AT_AN_END = "".join(
    map(
        chr,
        (
            *range(0x09, 0x0E),
            *range(0x1C, 0x21),
            *(0x85, 0xA0, 0xAD, 0x61C, 0x1680, 0x180E),
            *range(0x2000, 0x2010),
            *range(0x2028, 0x2030),
            *range(0x205F, 0x2070),
            *(0x3000, 0xFEFF),
        ),
    )
)


def trimmed(text: str) -> str:
    """Return `text` without what a paste leaves at its ends. Nothing inside is touched."""
    return text.strip(_AT_AN_END)


def is_one_word(text: str) -> bool:
    """Tell whether there is neither a blank in `text` nor anything else that nobody sees."""
    return text.isprintable() and " " not in text
