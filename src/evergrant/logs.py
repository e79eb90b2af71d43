"""Structured logging: one JSON object a line, with the request's id, and a last net that catches secrets.

Secrets are kept out of the log by their types (`SecretStr`, `Sealed`), which cannot print themselves. The redaction
here is for what slips past types: a library that logs a URL, a traceback that quotes a header.
"""

import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

request_id: ContextVar[str] = ContextVar("request_id", default="")

# Each pattern stands behind the words, in lower case, without which it cannot match: every access log line comes
# through here, and looking for a word costs a fiftieth of a search for a pattern.
_SECRET_PATTERNS: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = (
    # our own management keys and tickets, wherever they stand
    (("evg_",), re.compile(r"evg_[A-Za-z0-9]+_[A-Za-z0-9_-]{16,}")),
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
    # user and password in a database URL
    (("://",), re.compile(r"(?<=://)[^\s/@:]+:[^\s/@]+(?=@)")),
)

_STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}

_encode = json.JSONEncoder(default=str, ensure_ascii=False).encode


def redact(text: str) -> str:
    """Replace whatever looks like a credential in `text`."""
    lower = text.lower()
    for words, pattern in _SECRET_PATTERNS:
        if any(map(lower.__contains__, words)):
            text = pattern.sub(lambda m: (m.group(1) if m.lastindex else "") + "[redacted]", text)
    return text


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
        return redact(_encode(entry))


class TextFormatter(logging.Formatter):
    """Formats a record for a person at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line or, with a traceback, the lines, redacted."""
        extra = " ".join(f"{k}={v}" for k, v in vars(record).items() if k not in _STANDARD_ATTRIBUTES)
        return redact(f"{super().format(record)}{'  ' if extra else ''}{extra}")


def configure_logging(*, level: str, style: str) -> None:
    """Send everything, uvicorn's and the libraries' records included, to standard error in one `style`.

    Args:
        level: debug, info, warning or error.
        style: "json" for machines, "text" for people.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter() if style == "json" else TextFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    )
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
