"""What a client's program is able to do, whichever era it speaks."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Client:
    """A client, as far as it decides how its user is sent to a link."""

    is_modern: bool
    """Whether it speaks the era in which a server asks for input by its answer."""
    opens_links: bool
    """Whether it shows its user a link by itself (`elicitation.url`)."""
