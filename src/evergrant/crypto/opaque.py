"""Strings that we issue and recognise again: management keys, connect tickets, states.

Each is 256 random bits, so a plain SHA-256 digest is all that has to be stored; slow password hashing protects
guessable secrets, and these are not.
"""

import base64
import hashlib
import hmac
import re
import secrets
import zlib

KEY_PREFIX = "evg_"
"""What every management key of ours begins with."""
SESSION_PREFIX = "evs_"
"""What every key of an agent session begins with."""
_SESSION_KEY = re.compile(r"evs_(?P<project>[^:\s]{1,31})_(?P<id>[0-9A-Za-z]{22})_[0-9A-Za-z]{49}")
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def new_opaque() -> str:
    """Return 256 random bits as URL-safe text."""
    return secrets.token_urlsafe(32)


def new_id(length: int = 22) -> str:
    """Return a random identifier of letters and digits; 22 of them carry 131 bits."""
    return "".join(secrets.choice(_BASE62) for _ in range(length))


def digest(text: str) -> bytes:
    """Return what is stored of an opaque string."""
    return hashlib.sha256(text.encode()).digest()


def equal(left: bytes, right: bytes) -> bool:
    """Compare two digests in constant time."""
    return hmac.compare_digest(left, right)


def derived(secret: str, purpose: str) -> str:
    """Return 256 bits as URL-safe text that only who holds `secret` can know, always the same for one purpose.

    What a browser's cookie gives in this way need not be stored beside it.
    """
    return base64.urlsafe_b64encode(hmac.digest(secret.encode(), purpose.encode(), "sha256")).decode().rstrip("=")


def id_for(text: str, length: int = 12) -> str:
    """Return the identifier that a random text stands for, always the same.

    A form that carries such a text makes one thing however often it is sent, and whoever sends it cannot choose the
    identifier.
    """
    value = int.from_bytes(digest(text))
    letters = []
    for _ in range(length):
        value, index = divmod(value, 62)
        letters.append(_BASE62[index])
    return "".join(letters)


def new_management_key(key_id: str) -> str:
    """Make a management key: `evg_<key id>_<43 random letters><6 of checksum>`.

    The fixed prefix and the checksum let secret scanners find a leaked key without false alarms.
    """
    body = f"{KEY_PREFIX}{key_id}_{new_id(43)}"
    return body + _checksum(body)


def is_management_key(text: str) -> bool:
    """Tell whether `text` has the form of a management key of ours and its checksum is right."""
    return text.startswith(KEY_PREFIX) and len(text) > 10 and text[-6:] == _checksum(text[:-6])


def new_session_key(project_id: str, session_id: str) -> str:
    """Make an agent session's key: `evs_<project>_<session id>_<43 random letters><6 of checksum>`.

    It names its project, so it is enough by itself wherever a provider's SDK takes one string.
    """
    body = f"{SESSION_PREFIX}{project_id}_{session_id}_{new_id(43)}"
    return body + _checksum(body)


def session_key_parts(text: str) -> tuple[str, str] | None:
    """Return the project and the id in a session's key; None where `text` is none of ours, or is misspelt."""
    found = _SESSION_KEY.fullmatch(text)
    if found is None or text[-6:] != _checksum(text[:-6]):
        return None
    return found["project"], found["id"]


def _checksum(body: str) -> str:
    value = zlib.crc32(body.encode())
    letters = []
    for _ in range(6):
        value, index = divmod(value, 62)
        letters.append(_BASE62[index])
    return "".join(reversed(letters))
