"""Structured logging: one JSON object a line, with the request's id, and a last net that catches secrets.

Secrets are kept out of the log by their types (`SecretStr`, `Sealed`), which cannot print themselves. The redaction
here is for what slips past types: a library that logs a URL, a traceback that quotes a header.
"""

import asyncio
import itertools
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

request_id: ContextVar[str] = ContextVar("request_id", default="")
_PROCESS = os.urandom(4).hex()
_numbers = itertools.count()
read_trace_id: Callable[[], str] | None = None
"""Returns the id of the current trace, empty outside of any. `evergrant.tracing` sets it while traces are on."""


def new_request_id() -> str:
    """Return an id for a request: random for the process, counted within it. It is no secret, and no system call."""
    return f"{_PROCESS}{next(_numbers) % 2**32:08x}"


# Each pattern stands behind the words, in lower case, without which it cannot match: every access log line comes
# through here, and looking for a word costs a fiftieth of a search for a pattern.
_SECRET_PATTERNS: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = (
    # our own management keys and tickets, wherever they stand
    (("evg_",), re.compile(r"evg_[A-Za-z0-9]+_[A-Za-z0-9_-]{16,}")),
    (("evs_",), re.compile(r"evs_[^\s:_]+_[A-Za-z0-9]+_[A-Za-z0-9_-]{16,}")),
    # secrets of webhooks
    (("whsec_",), re.compile(r"whsec_[A-Za-z0-9+/=]{16,}")),
    # credentials in a header
    (("bearer ", "basic "), re.compile(r"(?i)(?<=bearer )[^\s\"',]+|(?<=basic )[A-Za-z0-9+/=]{8,}")),
    # secrets as query or form parameters, JSON members or Python reprs
    (
        ("_token", "stoken", "htoken", "secret", "code", "state", "api_key", "apikey", "password"),
        re.compile(
            r"(?i)(?<=[\"'&?\s{])((?:access_token|refresh_token|id_token|client_secret|code_verifier|code|state"
            r"|api_?key|clientSecret|accessToken|refreshToken|password)[\"']?\s*[=:]\s*[\"']?)([^\s\"'&,}]+)"
        ),
    ),
    # the one-use ticket in a connect link
    (("/connect/",), re.compile(r"(?<=/connect/)[A-Za-z0-9_-]{20,}")),
    # that of a link to a call which waits for approval
    (("/approve/",), re.compile(r"(?<=/approve/)[A-Za-z0-9_-]{20,}")),
    # the code of a one-time link to the console
    (("/enter/",), re.compile(r"(?<=/enter/)[A-Za-z0-9_-]{20,}")),
    # that of a link to somebody's connected accounts
    (("/accounts/",), re.compile(r"(?<=/accounts/)[A-Za-z0-9_-]{20,}")),
    # user and password in a database URL
    (("://",), re.compile(r"(?<=://)[^\s/@:]+:[^\s/@]+(?=@)")),
)

_STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}

_WORD = re.compile(r"[!#-<>-~]+")
_encode = json.JSONEncoder(default=str, ensure_ascii=False).encode


def redact(text: str) -> str:
    """Replace whatever looks like a credential in `text`."""
    lower = text.lower()
    for words, pattern in _SECRET_PATTERNS:
        if any(map(lower.__contains__, words)):
            text = pattern.sub(lambda m: (m.group(1) if m.lastindex else "") + "[redacted]", text)
    return text


def printable(text: str) -> str:
    """Escape what is not printable, as JSON does: line breaks, escape sequences, what turns or hides text.

    So nobody writes lines of their own into the log, or makes one look like another, by what they send.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


class JsonFormatter(logging.Formatter):
    """Formats a record, its `extra` members included, as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, redacted."""
        entry: dict[str, Any] = {
            "time": _time_of(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if rid := request_id.get():
            entry["requestId"] = rid
        if read_trace_id is not None and (trace := read_trace_id()):
            entry["traceId"] = trace
        entry |= {name: getattr(record, name) for name in sorted(vars(record).keys() - _STANDARD_ATTRIBUTES)}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return redact(printable(_encode(entry)))


def _time_of(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


class JsonHandler(logging.StreamHandler[Any]):
    """Writes lines of JSON to standard error."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(JsonFormatter())
        self._held: list[str] = []

    def write_info(
        self,
        logger: str,
        message: str,
        before: tuple[tuple[str, str], ...],
        ms: float,
        after: tuple[tuple[str, str], ...],
    ) -> None:
        """Write the line that a record of level INFO would be, past the logging module, which costs ten times as much.

        Its extra members are `before`, `ms` and `after`, in this order, which is that of their names. What does not
        change from one line to the next is remembered redacted, so this is for messages that come again and again.
        Lines of one turn of the event loop, which has to be running, are written together.
        """
        begin, middle, end = _parts(logger, message, before, after)
        if not self._held:
            asyncio.get_running_loop().call_soon(self.flush)
        self._held.append(f'{{"time": "{_time_of(time.time())}"{begin}{request_id.get()}{middle}{ms}{end}')

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, after the lines that came before it."""
        self._write_held()
        super().emit(record)

    def flush(self) -> None:
        """Write everything."""
        self._write_held()
        super().flush()

    def _write_held(self) -> None:
        lines, self._held = self._held, []
        try:
            self.stream.write("".join(lines))
        except (OSError, ValueError):  # the stream takes nothing: what the logging module does then is right for us too
            self.handleError(logging.makeLogRecord({"msg": "access log"}))


@lru_cache(maxsize=1024)
def _parts(
    logger: str, message: str, before: tuple[tuple[str, str], ...], after: tuple[tuple[str, str], ...]
) -> tuple[str, str, str]:
    """Return what stands before, between and behind a line's request id and time.

    Each part is redacted by itself: no pattern reaches over the quotation marks and blanks at their ends.
    """

    def members(some: Mapping[str, str]) -> str:
        return redact(printable(_encode(dict(some))[1:-1]))

    begin = members({"level": "info", "logger": logger, "message": message})
    return (
        f', {begin}, "requestId": "',
        f'", {members(dict(before))}, "ms": ',
        f", {members(dict(after))}}}\n" if after else "}\n",
    )


def only_handler() -> JsonHandler | None:
    """Return ours, where nothing else gets records, no test or program around us, and lines name no traces."""
    handlers = logging.root.handlers
    is_only = read_trace_id is None and len(handlers) == 1 and isinstance(handlers[0], JsonHandler)
    return handlers[0] if is_only else None  # type: ignore[return-value]


class TextFormatter(logging.Formatter):
    """Formats a record for a person at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line or, with a traceback, the lines, redacted. Only its first one begins with a time."""
        line = f"{self.formatTime(record)} {record.levelname:<7} {record.name}: {printable(record.getMessage())}"
        said = {name: value for name, value in vars(record).items() if name not in _STANDARD_ATTRIBUTES}
        if read_trace_id is not None and (trace := read_trace_id()):
            said["traceId"] = trace
        if said:
            line += "  " + " ".join(f"{name}={_word(str(value))}" for name, value in said.items())
        traceback = self.formatException(record.exc_info).split("\n") if record.exc_info else ()
        return redact("\n".join([line, *(f"    {printable(one)}" for one in traceback)]))


def _word(text: str) -> str:
    """Return text as it is if it is one word, or else in quotation marks: two members never look like three."""
    return text if _WORD.fullmatch(text) else printable(_encode(text))


def configure_logging(*, level: str, style: str) -> None:
    """Send everything, uvicorn's and the libraries' records included, to standard error in one `style`.

    Args:
        level: debug, info, warning or error.
        style: "json" for machines, "text" for people.
    """
    handler: logging.Handler = JsonHandler()
    if style != "json":
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(TextFormatter())
    # No line shows these, so no record needs to find them out.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    # Our middleware writes the one line per request; these write URLs with codes and states in them, or say little.
    for name in ("uvicorn.access", "httpx2", "httpcore2", "aiosqlite", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
