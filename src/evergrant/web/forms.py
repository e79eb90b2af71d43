"""Forms as browsers send them. Anybody may send one, so none may cost much."""

from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from evergrant.errors import InvalidValue, MalformedRequest
from evergrant.pasted import trimmed

MAX_FIELDS = 2000


@dataclass(frozen=True, slots=True)
class Form:
    """What was sent, in its order."""

    pairs: list[tuple[str, str]]
    files: dict[str, bytes] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """Return the last value of a field without the white space around it; empty if it was not sent."""
        return trimmed(next((value for key, value in reversed(self.pairs) if key == name), ""))

    def secret(self, name: str) -> str:
        """Return a value as it was typed, white space and all."""
        return next((value for key, value in reversed(self.pairs) if key == name), "")

    def all(self, name: str) -> list[str]:
        """Return every value of a field that is not empty."""
        return [text for key, value in self.pairs if key == name and (text := trimmed(value))]

    def every(self, name: str) -> list[str]:
        """Return every value of a field, empty ones too: for rows of several fields, read side by side."""
        return [trimmed(value) for key, value in self.pairs if key == name]

    def has(self, name: str) -> bool:
        """Tell whether a box was ticked or a button pressed."""
        return any(key == name for key, _ in self.pairs)

    def lines(self, name: str) -> list[str]:
        """Return the lines of a text area that are not empty."""
        return [line for raw in self.text(name).splitlines() if (line := trimmed(raw))]


def is_in_parts(request: Request) -> bool:
    """Tell whether a form is one of parts (RFC 7578), as those with files are."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "multipart/form-data"


async def read_form(request: Request) -> Form:
    """Read a form, with files or without.

    Raises:
        MalformedRequest: it cannot be read.
        InvalidValue: a field has what no text can have.
    """
    files: dict[str, bytes] = {}
    try:
        if is_in_parts(request):
            async with request.form(max_files=4, max_fields=MAX_FIELDS) as form:
                pairs = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
                for name, value in form.multi_items():
                    if isinstance(value, UploadFile) and value.filename:
                        files[name] = await value.read()
        else:
            body = (await request.body()).decode()
            pairs = parse_qsl(body, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except (ValueError, HTTPException):
        raise MalformedRequest("What was sent cannot be read. Go back and send it again.") from None
    if problems := [(_shown(name), problem) for name, value in pairs if (problem := _problem(name + value))]:
        raise InvalidValue.of(*problems)
    return Form(pairs, files)


def _problem(text: str) -> str:
    """Return what is wrong with a text that no database takes."""
    if "\x00" in text:
        return "must not contain the NUL character"
    # A form of parts says by itself how it is encoded, and some encodings can say half a character.
    return "must not contain half a character" if _shown(text) != text else ""


def _shown(text: str) -> str:
    return text.encode(errors="replace").decode()
