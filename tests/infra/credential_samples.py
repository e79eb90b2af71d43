"""What somebody could upload for an entry: fields, variables and keys, as the entry's own files describe them."""

import base64
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from hypothesis import find
from hypothesis import strategies as st

from tests.infra.entries import Entry

RSA, P256, SHARED = "rsa", "p256", "shared"


@functools.cache
def private_pem(kind: str) -> str:
    """Return a private key in PEM; one of each kind is enough for all entries."""
    made: PrivateKeyTypes = (
        rsa.generate_private_key(public_exponent=65537, key_size=2048)
        if kind == RSA
        else ec.generate_private_key(ec.SECP256R1())
    )
    return made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_pem(private: str) -> str:
    """Return the public half."""
    key = load_pem_private_key(private.encode(), None).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def public_sha256(private: str) -> str:
    """Return the public half's fingerprint, in base64."""
    key = load_pem_private_key(private.encode(), None).public_key()
    return base64.b64encode(
        hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    ).decode()


def key_for(assertion: Mapping[str, Any]) -> str:
    """Return a key that signs as an entry wants it, as an operator or a user pastes it."""
    alg = assertion["alg"]
    if alg.startswith("HS"):
        raw = bytes(range(32))
        return {"hex": raw.hex(), "base64": base64.b64encode(raw).decode()}.get(
            assertion.get("key_encoding", "text"), "a shared secret that is long enough"
        )
    return private_pem(P256 if alg.startswith("ES") else RSA)


def fields_for(entry: Entry) -> dict[str, str]:
    """Return a value for each field that is entered."""
    fields: dict[str, dict[str, Any]] = entry.get("fields", {})
    signing = entry.get("assertion", {}).get("key", "{signing_key}").strip("{}")
    found: dict[str, str] = {}
    for name, described in fields.items():
        if "in" not in described:
            inside = {n: d["from"] for n, d in fields.items() if d.get("in") == name}
            found[name] = _field(name, described, inside, signing, entry)
    return found


def _field(name: str, described: Mapping[str, Any], inside: Mapping[str, str], signing: str, entry: Entry) -> str:
    if inside and all(place.startswith("/") for place in inside.values()):
        parts = {place[1:]: key_for(entry["assertion"]) if n == signing else f"a-{n}" for n, place in inside.items()}
        return json.dumps(parts)
    if name == signing and not inside:
        return key_for(entry["assertion"])
    if name == "client_secret" and "private_key_jwt" in entry.get("token_endpoint_auth_methods_supported", []):
        return private_pem(RSA)
    return str(described.get("example") or _matching(described.get("pattern", ""), f"my-{name}"))


def _matching(pattern: str, plain: str) -> str:
    if not pattern or re.fullmatch(pattern, plain):
        return plain
    visible = st.from_regex(pattern, fullmatch=True).filter(lambda text: text.isascii() and text.isprintable())
    return str(find(visible, lambda text: bool(text.strip())))


def all_fields(entry: Entry, entered: Mapping[str, str]) -> dict[str, str]:
    """Return the fields with those that stand inside others."""
    whole = dict(entered)
    for name, described in entry.get("fields", {}).items():
        if "in" in described:
            text, place = entered[described["in"]], described["from"]
            match = None if place.startswith("/") else re.search(place, text)
            whole[name] = match[1] if match else str(json.loads(text)[place[1:]])
    return whole
