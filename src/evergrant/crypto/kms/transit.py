"""Master keys in the transit engine of OpenBao or HashiCorp Vault: they never leave it, it wraps and unwraps."""

import asyncio
import base64
import binascii
import logging
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from pydantic import SecretStr

from evergrant.crypto.kms.master_key import KEY_BYTES, SERVICE_SECONDS, TRANSIT_SCHEME, id_of
from evergrant.crypto.sealed import Slot
from evergrant.errors import CannotOpenSealed, ConfigurationError, KeyServiceUnavailable, MasterKeyRefused
from evergrant.networks import is_loopback_host

log = logging.getLogger(__name__)

TRIES = 2
TRY_SECONDS = 5.0


@dataclass(frozen=True)
class TransitAccess:
    """How this process shows who it is: a token, or a file with one that an agent keeps fresh."""

    token: SecretStr | None = None
    token_file: Path | None = None
    namespace: str = ""
    """Of OpenBao and of Vault Enterprise; empty for the root."""

    async def headers(self) -> dict[str, str]:
        """Return what each request carries. The file is read each time, so that a renewed token counts at once.

        Raises:
            MasterKeyRefused: there is no token.
        """
        token = self.token.get_secret_value() if self.token is not None else ""
        if self.token_file is not None:
            try:
                token = (await asyncio.to_thread(self.token_file.read_text, encoding="utf-8")).strip()
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is no text"
                raise MasterKeyRefused(f"EVERGRANT_VAULT_TOKEN_FILE: cannot read it: {reason}") from None
        if not re.fullmatch(r"[!-~]+", token):
            raise MasterKeyRefused("EVERGRANT_VAULT_TOKEN: there is no token, or it is more than one word of ASCII")
        headers = {"X-Vault-Token": token, "X-Vault-Request": "true"}
        return headers | ({"X-Vault-Namespace": self.namespace} if self.namespace else {})


class TransitKey:
    """One key of a transit engine, of a type with associated data: `aes256-gcm96`, which is the default."""

    def __init__(self, url: str, access: TransitAccess) -> None:
        """`url` is the server's, then the engine's mount, then the key's name.

        Raises:
            ConfigurationError: the URL cannot be used.
        """
        parts = urlsplit(url)
        *mount, key = [part for part in parts.path.split("/") if part] or [""]
        if not mount or not all(re.fullmatch(r"[\w.-]+", part, re.ASCII) for part in (*mount, key)):
            raise ConfigurationError(f"{TRANSIT_SCHEME}{url}: write {TRANSIT_SCHEME}https://SERVER:8200/MOUNT/KEY")
        if parts.query or parts.fragment or "@" in parts.netloc:
            raise ConfigurationError(
                f"{TRANSIT_SCHEME}...: write no user, query or fragment; the token has its own setting"
            )
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback_host(parts.hostname or "")):
            raise ConfigurationError(f"{TRANSIT_SCHEME}{url}: must be https; plain http is for loopback only")
        self.name = f"{TRANSIT_SCHEME}{url}"
        self.id = id_of(self.name)
        self._server = f"{parts.scheme}://{parts.netloc}"
        self._mount, self._key = "/".join(mount), key
        self._access = access
        self._tls: ssl.SSLContext | None = None

    async def wrap(self, slot: Slot, key: bytes) -> bytes:
        """Encrypt a data key for its place; raises as `MasterKey.wrap`."""
        answer = await self._call(
            "encrypt", {"plaintext": _text(key), "associated_data": _text(slot.associated_data())}
        )
        ciphertext = answer.get("ciphertext")
        if not isinstance(ciphertext, str) or not ciphertext.isascii() or not ciphertext:
            raise KeyServiceUnavailable
        return ciphertext.encode()

    async def unwrap(self, slot: Slot, wrapped: bytes) -> bytes:
        """Decrypt what `wrap` made for the same place; raises as `MasterKey.unwrap`."""
        try:
            ciphertext = wrapped.decode("ascii")
        except UnicodeDecodeError:
            raise CannotOpenSealed from None
        data = {"ciphertext": ciphertext, "associated_data": _text(slot.associated_data())}
        answer = await self._call("decrypt", data)
        try:
            key = base64.b64decode(answer.get("plaintext", ""), validate=True)
        except (binascii.Error, ValueError, TypeError):
            key = b""
        if len(key) != KEY_BYTES:
            raise KeyServiceUnavailable
        return key

    async def _call(self, verb: str, data: dict[str, str]) -> dict[str, Any]:
        headers = await self._access.headers()
        if self._tls is None:
            self._tls = await asyncio.to_thread(httpx2.create_ssl_context)
        answer: httpx2.Response | None = None
        try:
            # A client for each call: there are few, and none has to be closed later. It follows no redirect, and takes
            # no proxy from the environment: the token goes to this server and to no other.
            async with (
                asyncio.timeout(SERVICE_SECONDS),
                httpx2.AsyncClient(verify=self._tls, timeout=TRY_SECONDS, trust_env=False) as http,
            ):
                for attempt in range(TRIES):
                    try:
                        answer = await http.post(
                            f"{self._server}/v1/{self._mount}/{verb}/{self._key}", json=data, headers=headers
                        )
                    except httpx2.TransportError:
                        if attempt == TRIES - 1:
                            raise
                        continue
                    if answer.status_code < 500 and answer.status_code != 429:
                        break
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, OSError) as error:
            log.warning("the key service cannot be reached", extra={"key": self.name, "why": type(error).__name__})
            raise KeyServiceUnavailable from None
        return self._read(verb, answer)

    def _read(self, verb: str, answer: httpx2.Response | None) -> dict[str, Any]:
        body = _json(answer)
        status = answer.status_code if answer is not None else 0
        if status == 200 and isinstance(body.get("data"), dict):
            found: dict[str, Any] = body["data"]
            return found
        errors = body.get("errors")
        why = "; ".join(str(error)[:200] for error in errors) if isinstance(errors, Sequence) else ""
        if status == 400 and verb == "decrypt" and why and "key not found" not in why:  # without a reason, a proxy's
            log.error("the key service cannot unwrap a data key", extra={"key": self.name, "why": why})
            raise CannotOpenSealed
        if status in (400, 403, 404, 405) or 300 <= status < 400:
            raise MasterKeyRefused(
                f"{self.name} refuses ({status}{f': {why}' if why else ''}): the key must be there, and the token must "
                f"be valid and may update {self._mount}/encrypt/{self._key} and {self._mount}/decrypt/{self._key}"
            )
        log.warning(
            "the key service does not answer as it should", extra={"key": self.name, "status": status, "why": why}
        )
        raise KeyServiceUnavailable


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _json(answer: httpx2.Response | None) -> dict[str, Any]:
    try:
        body = answer.json() if answer is not None else None
    except ValueError:
        body = None
    return body if isinstance(body, dict) else {}
