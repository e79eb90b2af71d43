"""What all wire models share: camelCase, null as absent, storable text, and pastes without the blanks around them."""

import warnings
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

from fastapi import Query
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    Strict,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.warnings import UnsupportedFieldAttributeWarning

from evergrant.oauth2.token_response import MAX_TOKEN_LENGTH
from evergrant.pasted import trimmed
from evergrant.web.errors import invalid_request

MAX_LEVELS = 50
LONGEST_APP_ID = 64
LONGEST_ID = 255
LAST_MILLISECOND = 253_402_300_799_999
"""The end of the year 9999."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def storable(value: str) -> str:
    """Return text that a database takes.

    Raises:
        ValueError: it is none.
    """
    if "\x00" in value:
        raise ValueError("must not contain the NUL character")
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError("must not contain half a surrogate pair")
    return value


def _storable_secret(value: SecretStr) -> SecretStr:
    text = storable(value.get_secret_value())
    if text and not trimmed(text):
        raise ValueError("is blank: paste it again, or leave it out")
    return SecretStr(trimmed(text))


def _seconds(value: Any) -> Any:
    """Take epoch seconds as a fetch writes them, too: in text, which is empty where there are none."""
    if isinstance(value, str) and value.isascii() and (value.isdigit() or not value):
        return int(value[:20] or "0")
    return value


def storable_json(value: Any, *, levels: int = MAX_LEVELS) -> None:
    """Check every text in a piece of JSON, names of members among them, and that it can be written out again.

    Raises:
        ValueError: a database would not take one, or it has more than so many levels.
    """
    if isinstance(value, str):
        storable(value)
    elif isinstance(value, (dict, list)):
        if not levels:
            raise ValueError(f"use at most {MAX_LEVELS} levels of objects and lists")
        for member in (*value, *value.values()) if isinstance(value, dict) else value:
            storable_json(member, levels=levels - 1)


Text = Annotated[str, Strict(), AfterValidator(storable)]
"""Text that is taken exactly as it is sent, such as an id that somebody else has chosen."""
PastedText = Annotated[Text, AfterValidator(trimmed)]
"""Text that neither begins nor ends with white space, whatever was pasted: a name, a URL, a client id."""
ShortText = Annotated[PastedText, Field(max_length=2_000)]
_Secret = Annotated[SecretStr, Strict(), AfterValidator(_storable_secret)]
SecretText = Annotated[_Secret, Field(max_length=10_000)]
SigningKey = Annotated[_Secret, Field(max_length=20_000)]
"""With its lines."""
TokenText = Annotated[_Secret, Field(max_length=MAX_TOKEN_LENGTH)]
"""A token: as long as one that a provider may issue."""
Flag = Annotated[bool, Strict()]
EpochSeconds = Annotated[
    int, Strict(), Field(ge=0, le=253_402_300_799), BeforeValidator(_seconds, json_schema_input_type=int | str)
]
"""A moment as a number or in text; 0 and empty are none."""
AppId = Annotated[PastedText, Field(min_length=1, max_length=LONGEST_APP_ID)]
OwnerId = Annotated[Text, Field(min_length=1, max_length=LONGEST_ID)]
"""A user's or tenant's id: yours, opaque to evergrant."""
OptionalId = Annotated[Text, Field(max_length=LONGEST_ID)]


# FastAPI silences what pydantic says of its bodies' names while it makes a route. Our models are built after that.
warnings.filterwarnings("ignore", category=UnsupportedFieldAttributeWarning)


class WireModel(BaseModel):
    """A request or an answer. Fields that are not known are ignored, as the vendor's own samples send some."""

    # Built when one is first used: together they are a tenth of a start, and most processes use few of them.
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        return {k: v for k, v in data.items() if v is not None} if isinstance(data, dict) else data


def example(members: dict[str, Any]) -> ConfigDict:
    """Make a model's configuration that adds an example to the OpenAPI document."""
    return ConfigDict(json_schema_extra={"examples": [members]})


class StrictWireModel(WireModel):
    """A definition: a misspelt field must not pass silently."""

    model_config = ConfigDict(extra="forbid")


class Nothing(WireModel):
    """An empty answer: it is done."""

    model_config = example({})


def epoch(at: datetime | None) -> str:
    """Write an instant as epoch seconds in text; none is empty."""
    return str(int(at.timestamp())) if at is not None else ""


def epoch_milliseconds(at: datetime) -> str:
    """Write an instant as epoch milliseconds in text."""
    return str((at - _EPOCH) // timedelta(milliseconds=1))


def moment(milliseconds: int) -> datetime | None:
    """Read epoch milliseconds; SDKs whose callers gave none send 0, or the year 1."""
    return _EPOCH + timedelta(milliseconds=milliseconds) if milliseconds > 0 else None


_MILLISECONDS = "Epoch milliseconds; 0 for no limit."
From = Annotated[int, Query(alias="from", le=LAST_MILLISECOND, description=_MILLISECONDS, examples=[0])]
To = Annotated[int, Query(le=LAST_MILLISECOND, description=_MILLISECONDS, examples=[0])]


class ErrorField(WireModel):
    """One wrong field."""

    field: str = Field(description="Its name, with the path to it: `options.scopes[0]`.")
    problem: str = Field(description="What is wrong and what to do; never the value that was sent.")


class ErrorDetails(WireModel):
    """What helps the caller act. Which members there are depends on the error."""

    fields: list[ErrorField] | None = None
    missing_scopes: list[str] | None = None
    refused_scopes: list[str] | None = Field(
        default=None,
        description="Those of the missing ones that the last consent was asked for, and that were not granted.",
    )
    reason: str | None = None
    last_refresh_error: str | None = None
    provider_error: str | None = Field(default=None, description="The provider's own error code.")


class ErrorBody(WireModel):
    """Every error of every call."""

    model_config = example(
        {
            "errorCode": "E011003",
            "errorDescription": "An argument has a value that cannot be used.",
            "errorMessage": "tokenUrl: use https",
            "message": "tokenUrl: use https",
            "requestId": "5f0c2b9d8a7e6f41",
            "details": {"fields": [{"field": "tokenUrl", "problem": "use https"}]},
        }
    )

    error_code: str
    error_description: str
    error_message: str
    message: str = Field(description="The same as errorMessage.")
    request_id: str = Field(description="Find the call in evergrant's log by it.")
    details: ErrorDetails | None = None


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document the errors of a call; those that every call has are added."""
    meanings = {
        400: "The request is wrong: `details.fields` names each field and the remedy.",
        401: "No or wrong credential, or a key that is expired, disabled or used from a forbidden address.",
        403: "The credential is valid but not allowed to do this.",
        404: "There is no such app, or nobody has connected it with these scopes: send the user through connect.",
        409: "The id or the name is already taken.",
        413: "The body is larger than 1 MiB.",
        429: "Too many requests. Obey `Retry-After` (seconds).",
        502: "The provider refuses the app, which its operator must correct, or this connection alone.",
        503: "The provider or the database is away and there is no valid token left. Obey `Retry-After` (seconds).",
    }
    return {
        status: {"model": ErrorBody, "description": meanings[status]}
        for status in sorted({401, 403, 429, 503, *statuses})
    }


M = TypeVar("M", bound=WireModel)


def parsed(body: bytes, model: type[M]) -> M:
    """Parse the body of a call that the framework does not read.

    Raises:
        MalformedRequest, MissingArgument, InvalidValue: as the conventional calls.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise invalid_request(error.errors(include_url=False, include_input=False)) from None
