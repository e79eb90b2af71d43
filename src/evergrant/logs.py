"""Structured logging: one JSON object a line, with the request's id, and a last net that catches secrets.

Secrets are kept out of the log by their types (`SecretStr`, `Sealed`), which cannot print themselves. The redaction
here is for what slips past types: a library that logs a URL, a traceback that quotes a header.
"""

import itertools
import json
import logging
import os
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

request_id: ContextVar[str] = ContextVar("request_id", default="")
_PROCESS = os.urandom(4).hex()
_numbers = itertools.count()


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
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if rid := request_id.get():
            entry["requestId"] = rid
        entry |= {name: getattr(record, name) for name in sorted(vars(record).keys() - _STANDARD_ATTRIBUTES)}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return redact(printable(_encode(entry)))


class TextFormatter(logging.Formatter):
    """Formats a record for a person at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line or, with a traceback, the lines, redacted. Only its first one begins with a time."""
        line = f"{self.formatTime(record)} {record.levelname:<7} {record.name}: {printable(record.getMessage())}"
        said = {name: value for name, value in vars(record).items() if name not in _STANDARD_ATTRIBUTES}
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
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
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
