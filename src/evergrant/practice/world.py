"""The pretend world of the practice provider: its people, its scopes and the contacts it guards."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who can sign in; `id` is the OpenID Connect `sub`."""

    id: str
    name: str
    email: str

    @property
    def initials(self) -> str:
        """The letters of the avatar."""
        return "".join(part[0] for part in self.name.split())


PERSONS = {
    person.id: person
    for person in (
        Person("practice-ada", "Ada Example", "ada@example.com"),
        Person("practice-grace", "Grace Sample", "grace@example.com"),
        Person("practice-linus", "Linus Pretend", "linus@example.com"),
    )
}

SCOPES = {
    "openid": "Know who you are",
    "profile": "See your name",
    "email": "See your email address",
    "contacts.readonly": "See your contacts",
    "contacts": "See and change your contacts",
    "offline_access": "Keep access while you are away",
}
"""Every scope the provider knows, with the words of its consent page."""

DEFAULT_SCOPES = frozenset({"profile"})
"""What a request without `scope` asks for (RFC 6749 section 3.3 leaves that to the server)."""

CONTACTS = (
    {"name": "Margaret Fiction", "email": "margaret@example.com", "phone": "+1 202 555 0104"},
    {"name": "Katherine Imagined", "email": "katherine@example.org", "phone": "+1 202 555 0117"},
    {"name": "Edsger Invented", "email": "edsger@example.net", "phone": "+1 202 555 0142"},
)
