"""A field of credentials that a connection brings: a key, a password, a private key."""

import json
import re
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from evergrant.catalog.field_types import Description, Regex, StrictModel, Title, VariableName

MAX_LENGTH = 20_000
"""A service account's key file has some 2,400 characters."""


class CredentialField(StrictModel):
    """What whoever uploads credentials enters, or what follows from that. All of them are sealed together."""

    title: Title
    hint: Description = ""
    """Where people find it, where the name does not say."""
    pattern: Regex = ""
    """The whole value must match."""
    example: str = ""
    secret: bool = True
    """Not shown while it is entered. A user name need not be hidden; it is sealed all the same."""
    multiline: bool = False
    """It has lines: a private key, a key file."""
    required: bool = True
    inside: Annotated[VariableName | str, Field(alias="in")] = ""
    """The other field in which it is found; nobody enters it then."""
    from_: Annotated[str, Field(alias="from", max_length=200)] = ""
    """Where it stands in that: a JSON pointer (RFC 6901), or a regular expression with one group."""

    @property
    def is_asked_for(self) -> bool:
        """Whether somebody enters it."""
        return not self.inside

    def problem_with(self, value: str) -> str:
        """Say what is wrong with `value` and what to enter instead; empty when it is good."""
        if not value.strip():
            return "enter a value"
        if len(value) > MAX_LENGTH:
            return f"use at most {MAX_LENGTH:,} characters"
        plain = value.replace("\n", "").replace("\r", "").replace("\t", "") if self.multiline else value
        if not plain.isprintable():
            return "must not contain line breaks and invisible characters: paste it again"
        if self.pattern and not re.fullmatch(self.pattern, value.strip(), re.DOTALL):
            return f"use a value like {self.example}" if self.example else f"use a value that matches {self.pattern}"
        return ""

    def found_in(self, whole: str) -> str:
        """Return the value that stands in the other field's; empty where it does not."""
        if not self.from_.startswith("/"):
            found = re.search(self.from_, whole)
            return found[1] if found else ""
        try:
            value: Any = json.loads(whole)
            for part in self.from_[1:].split("/"):
                value = value[part.replace("~1", "/").replace("~0", "~")]
        except (ValueError, TypeError, KeyError, RecursionError):  # nested without end
            return ""
        return value if isinstance(value, str) else ""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if bool(self.inside) != bool(self.from_):
            raise ValueError("`in` names another field and `from` says where the value stands in it: write both")
        if self.from_ and not self.from_.startswith("/") and re.compile(self.from_).groups != 1:
            raise ValueError(f"from {self.from_!r}: use a JSON pointer, or a regular expression with one group")
        if self.example and self.problem_with(self.example):
            raise ValueError(f"example {self.example!r}: {self.problem_with(self.example)}")
        return self
