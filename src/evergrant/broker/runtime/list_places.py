"""Where a page of a list by time ends, and the next one goes on."""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, literal, tuple_

from evergrant.db.types import UtcDateTime
from evergrant.errors import InvalidValue

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Place(NamedTuple):
    """A row's place in a list by time, and then by id."""

    at: datetime
    id: str

    def __str__(self) -> str:
        """Write it for an address."""
        return f"{(self.at - EPOCH) // timedelta(microseconds=1):x}.{self.id}"

    @classmethod
    def parse(cls, value: str, *, field: str) -> "Place | None":
        """Read what `str` wrote; None for an empty text.

        Raises:
            InvalidValue: it is something else.
        """
        if not value:
            return None
        microseconds, _, row_id = value.partition(".")
        try:
            return cls(EPOCH + timedelta(microseconds=int(microseconds, 16)), row_id)
        except (ValueError, OverflowError):
            raise InvalidValue.of((field, "is no place in this list: begin at its first page")) from None

    def older(self, at: Any, row_id: Any) -> ColumnElement[bool]:
        """Return the condition for the rows before it, by the columns of their time and id."""
        return tuple_(at, row_id) < self._here()

    def newer(self, at: Any, row_id: Any) -> ColumnElement[bool]:
        """Return the condition for the rows after it."""
        return tuple_(at, row_id) > self._here()

    def _here(self) -> ColumnElement[Any]:
        return tuple_(literal(self.at, UtcDateTime()), literal(self.id))
