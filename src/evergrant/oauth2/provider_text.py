"""Makes words that a provider chose safe to show to a person and to write to a log."""

import unicodedata
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

MAX_LENGTH = 300
_REDACTED = "[redacted]"


def provider_text(text: object, *, secrets: Iterable[str] = ()) -> str:
    """Return `text` on one line, without control characters and our `secrets`, in at most 300 characters.

    Some providers echo the request in their error. Redaction comes after the control characters are gone and
    before the cut, so that neither a secret with a gap nor half a secret gets through. What is not text
    becomes "".
    """
    if not isinstance(text, str):
        return ""
    # category C: control, format (which includes the bidirectional overrides), surrogate and unassigned
    # characters
    hidden = {c for c in set(text) if not c.isspace() and unicodedata.category(c)[0] == "C"}
    hidden.add("\ufffd")  # stands where an answer had a NUL or half a surrogate
    visible = "".join(" " if c.isspace() else c for c in text if c not in hidden)
    clean = " ".join(visible.split())
    for secret in sorted({s for s in secrets if s}, key=len, reverse=True):
        for form in {secret, quote(secret, safe=""), quote_plus(secret)}:
            clean = clean.replace(form, _REDACTED)
    return clean if len(clean) <= MAX_LENGTH else clean[: MAX_LENGTH - 1] + "…"
