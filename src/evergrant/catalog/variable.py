"""A value of a catalogue entry that differs from app to app, or from connection to connection."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from evergrant.catalog.field_types import Regex, StrictModel, Title

Source = Literal["app", "user", "callback", "token", "context", "variable"]


class Variable(StrictModel):
    """A value that differs from app to app, or from connection to connection; written `{name}` where it is used."""

    title: Title
    source: Source = "app"
    """Who gives it: the operator when the app is made, the user who connects, the browser's way back (`callback`),
    the token endpoint's answer, the answer to `context_request`; or nobody: it follows from another variable."""
    from_: Annotated[str, Field(alias="from", max_length=200)] = ""
    """Of a captured one: the callback's parameter, or a JSON pointer (RFC 6901) into the answer. Of one that follows:
    the other variable."""
    values: dict[str, str] = Field(default_factory=dict)
    """Of one that follows: its value for each that the other can have."""
    pattern: Regex = ""
    """The whole value must match. Demanded where it is part of a URL."""
    enum: tuple[str, ...] = ()
    default: str = ""
    example: str = ""
    required: bool | None = None
    """Left out: true for what operator or user give, unless there is a default; false for what is captured."""

    @property
    def is_captured(self) -> bool:
        """Whether it comes from an answer, and not from a person."""
        return self.source in ("callback", "token", "context")

    @property
    def is_asked_for(self) -> bool:
        """Whether a person gives it."""
        return self.source in ("app", "user")

    @property
    def is_required(self) -> bool:
        """Whether a connection without a value for it cannot be made."""
        if self.source == "variable":
            return False
        return self.required if self.required is not None else not (self.is_captured or self.default)

    def problem_with(self, value: str) -> str:
        """Say what is wrong with `value` and what to use instead; empty when it is good."""
        if len(value) > 500 or not value.isprintable():
            return "use at most 500 printable characters"
        if self.enum and value not in self.enum:
            return f"use one of {', '.join(self.enum)}"
        if self.pattern and not re.fullmatch(self.pattern, value):
            return f"use a value like {self.example}" if self.example else f"use a value that matches {self.pattern}"
        return ""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.is_captured and not self.from_:
            raise ValueError("say in `from` which callback parameter, or which place in the answer (a JSON pointer)")
        if self.source == "variable" and not (self.from_ and self.values):
            raise ValueError("name the other variable in `from`, and give `values`: what this one is for each of its")
        if self.from_ and self.is_asked_for:
            raise ValueError(f"`from` is for values that nobody enters, and source {self.source!r} is asked for")
        if self.values and self.source != "variable":
            raise ValueError("`values` is only for source 'variable'; the values to choose from are `enum`")
        if self.source in ("token", "context") and not self.from_.startswith("/"):
            raise ValueError(f"from {self.from_!r}: use a JSON pointer, like /instance_url")
        for field, value in (("default", self.default), ("example", self.example)):
            if value and self.problem_with(value):
                raise ValueError(f"{field} {value!r}: {self.problem_with(value)}")
        return self
