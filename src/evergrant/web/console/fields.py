"""What forms of several sections share: problems by field, dates, and the text that lets a form work once."""

from datetime import UTC, date, datetime, time, timedelta

from evergrant.crypto.opaque import new_opaque
from evergrant.errors import InvalidRequest, InvalidValue

MAX_ONCE = 64


def problems_of(error: InvalidRequest) -> dict[str, str]:
    """Return what is wrong with each field."""
    return {entry["field"].partition("[")[0]: entry["problem"] for entry in error.details.get("fields", ())}


def new_once() -> str:
    """Return a text for a form that makes something with a secret: sent twice, it makes one thing (`id_for`)."""
    return new_opaque()


def checked_once(text: str) -> str:
    """Return such a text as a form has sent it.

    Raises:
        InvalidValue: it is none of ours.
    """
    if not 40 <= len(text) <= MAX_ONCE:
        raise InvalidValue("Open this form again: it was not sent whole.")
    return text


def day_end(field: str, text: str, *, after: datetime | None = None) -> datetime | None:
    """Return the end of a day that a form names, by UTC; None for no day.

    Raises:
        InvalidValue: it is no day, or over at `after`.
    """
    if not text:
        return None
    try:
        end = datetime.combine(date.fromisoformat(text) + timedelta(days=1), time(), UTC)
    except (ValueError, OverflowError):
        raise InvalidValue.of((field, "write a day as 2027-01-31")) from None
    if after is not None and end <= after:
        raise InvalidValue.of((field, "this day is over: choose a later one, or none"))
    return end


def day_start(field: str, text: str) -> datetime | None:
    """Return the beginning of a day that a form names, by UTC; None for no day.

    Raises:
        InvalidValue: it is no day.
    """
    if not text:
        return None
    try:
        return datetime.combine(date.fromisoformat(text), time(), UTC)
    except ValueError:
        raise InvalidValue.of((field, "write a day as 2027-01-31")) from None
