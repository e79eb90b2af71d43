"""What one provider knows, and every kind of request that it takes, as its catalogue entry says."""

import base64
import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import quote

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from tests.infra.conformance_wants import Want, Wanted, something
from tests.infra.entries import Entry, as_texts, fill, sample
from tests.infra.scripted import Request

CLIENT_KEY = ECKey.generate_key("P-256")
"""What an operator enters as the client secret where the entry signs with it."""


@dataclass(frozen=True)
class AnswerOverride:
    """Another answer than usual: made of the usual one, or (`instead`) in its place, so that nothing is issued."""

    change: Callable[[Any], Any]
    instead: bool = False


@dataclass
class Demands:
    """One entry, with what its provider knows: one client, and one person whose connection it keeps."""

    entry: Entry
    base: str
    callback: str = ""
    """Our app's, once there is one."""
    client_id: str = ""
    client_secret: str = "s3cret +/&%"
    complaints: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    seen: list[tuple[str, Request]] = field(default_factory=list)
    overrides: dict[str, list[AnswerOverride]] = field(default_factory=lambda: defaultdict(list))
    callback_params: dict[str, str] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    access_token: str = ""
    refresh_token: str = ""
    lifetime: int | None = None
    ends_at: float = 0.0
    spent: dict[str, float] = field(default_factory=dict)
    dead: bool = False
    dead_answer: int = 0
    """Which of the entry's answers a dead refresh token gets."""
    traded: bool = False
    revoked: list[str] = field(default_factory=list)
    count: int = 0

    def __post_init__(self) -> None:
        self.client_id = f"client-{self.entry['id']}"
        if self.entry.get("hook"):
            self.client_secret = CLIENT_KEY.as_pem(private=True).decode()
        self.variables: dict[str, dict[str, Any]] = self.entry.get("variables", {})
        followers = {name: v for name, v in self.variables.items() if v.get("source") == "variable"}
        self.values = {n: sample(n, v, self.base) for n, v in self.variables.items() if n not in followers}
        self.values |= {name: str(v["values"][self.values[v["from"]]]) for name, v in followers.items()}
        self.scopes = self.default_scopes()
        self.separator: str = self.entry.get("scope_separator", " ")
        self.never = self.entry.get("default_expires_in") == "never"
        self.rotation: str = self.entry.get("refresh_token_rotation", "unknown")
        self.trades: list[dict[str, Any]] = self.entry.get("token_exchange", [])
        self.has_refresh_tokens = not self.trades and not (self.never and self.rotation == "unknown")
        common = self.entry.get("parameter_names", {})
        self.authorization_names = {**common, **self.entry.get("authorization_parameter_names", {})}
        self.token_names = {**common, **self.entry.get("token_parameter_names", {})}

    def forget(self) -> Self:
        """Begin anew, as for somebody who has never been here."""
        for kept in (self.complaints, self.refusals, self.seen, self.overrides, self.callback_params, self.codes):
            kept.clear()
        self.spent, self.revoked, self.dead, self.dead_answer, self.traded = {}, [], False, 0, False
        self.access_token = self.refresh_token = ""
        self.scopes = self.default_scopes()
        return self

    def default_scopes(self) -> list[str]:
        """Return what is asked for when nobody says otherwise, with the variables filled in."""
        return [fill(scope, self.values) for scope in self.entry.get("default_scopes", [])]

    def of_source(self, *sources: str) -> dict[str, str]:
        """Return the variables' values that come from these sources."""
        return {n: self.values[n] for n, v in self.variables.items() if v.get("source", "app") in sources}

    def calls(self, role: str) -> list[Request]:
        """Return the requests of one kind, in their order."""
        return [seen for kind, seen in self.seen if kind == role]

    def wanted(self, seen: Request) -> Iterator[Wanted]:
        entry, sent = self.entry, seen.params
        yield self._authorization(sent)
        code = self.codes.get(str(sent.get(self.token_names.get("code", "code"), "")), {})
        redeeming: dict[str, Want] = {"grant_type": "authorization_code", "code": lambda value: value in self.codes}
        redeeming["redirect_uri"] = self.redirect_uri
        if self.has_pkce:
            redeeming["code_verifier"] = lambda verifier: _challenge(verifier) == code.get("challenge")
        extra = self._filled(entry.get("token_params", {}), {**code, "scope": self.scope})
        yield self._client_call("token", entry["token_endpoint"], redeeming, extra)
        yield self._client_call(
            "refresh",
            entry.get("refresh_endpoint") or entry["token_endpoint"],
            {"grant_type": "refresh_token", "refresh_token": something},
            self._filled(entry.get("refresh_params", {}), {"scope": self.scope, "redirect_uri": self.redirect_uri}),
        )
        for step in self.trades:
            method = step.get("method", "GET")
            params = self._filled(step.get("params", {}), {"access_token": self.access_token})
            form = "query" if method == "GET" else "form"
            yield Wanted("trade", method, self._url(step["url"]), params, form=form)
        if "introspection_endpoint" in entry:
            params = {"token": self.access_token, "token_type_hint": "access_token"}
            yield self._client_call("introspection", entry["introspection_endpoint"], params, {}, method="POST")
        if "context_request" in entry:
            asked = entry["context_request"]
            theirs = asked.get("headers", {"Authorization": "Bearer {access_token}"})
            headers = {n.lower(): fill(v, {"access_token": self.access_token}) for n, v in theirs.items()}
            body = asked.get("json_body", "")
            yield Wanted("context", asked.get("method", "GET"), self._url(asked["url"]), headers=headers, body=body)
        bearer = {"authorization": f"Bearer {self.access_token}"}
        if "userinfo_endpoint" in entry:
            yield Wanted("userinfo", "GET", self._url(entry["userinfo_endpoint"]), headers=bearer)
        if "jwks_uri" in entry:
            yield Wanted("jwks", "GET", self._url(entry["jwks_uri"]))
        if "revocation_endpoint" in entry:
            token = self.refresh_token or self.access_token
            kind = "refresh_token" if self.refresh_token or self.trades else "access_token"
            params = {"token": token, "token_type_hint": kind}
            yield self._client_call("revocation", entry["revocation_endpoint"], params, {}, method="POST")
        elif "revocation" in entry:
            yield self._own_revocation(entry["revocation"])

    @property
    def scope(self) -> str:
        return self.separator.join(self.scopes)

    @property
    def redirect_uri(self) -> str:
        """Our callback address, or what this provider wants to see in its place."""
        return self._url(self.entry.get("redirect_uri", "")) or self.callback

    @property
    def has_pkce(self) -> bool:
        return bool(self.entry.get("pkce", "supported") != "absent")

    @property
    def signs_in(self) -> bool:
        """Whether it gives id_tokens."""
        return "openid" in self.scopes and "jwks_uri" in self.entry and "issuer" in self.entry

    def _url(self, text: str) -> str:
        return fill(text, {"client_id": self.client_id}, self.values)

    def _filled(self, table: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Want]:
        known = {**values, "client_id": self.client_id, "client_secret": self.client_secret}
        texts = as_texts(table)
        made = {name: fill(text, known, self.values) for name, text in texts.items()}
        return {name: something if text in ("{random}", "{nonce}") else text for name, text in made.items() if text}

    def _authorization(self, sent: Mapping[str, Any]) -> Wanted:
        params: dict[str, Want] = {"response_type": "code", "client_id": self.client_id}
        params |= {"redirect_uri": self.redirect_uri, "state": lambda state: len(state) >= 20}
        params |= {"scope": self.scope} if self.scopes else {}
        if self.has_pkce:
            params |= {"code_challenge": lambda text: len(text) == 43, "code_challenge_method": "S256"}
        params |= {"nonce": something} if "openid" in self.scopes else {}
        extra = self._filled(self.entry.get("authorization_params", {}), {"state": str(sent.get("state"))})
        params = {**_named(params, self.authorization_names), **extra}
        return Wanted("authorization", "GET", self._url(self.entry["authorization_endpoint"]), params)

    def _client_call(
        self, role: str, url: str, params: Mapping[str, Want], extra: Mapping[str, Want], *, method: str = ""
    ) -> Wanted:
        proof, headers = self._proof()
        form = self.entry.get("token_request_format", "form")
        method = method or self.entry.get("token_request_method", "POST")
        wanted = {**_named({**params, **proof}, self.token_names), **extra}
        return Wanted(role, method, self._url(url), wanted, {"accept": "application/json", **headers}, form)

    def _proof(self, method: str = "") -> tuple[dict[str, Want], dict[str, Want]]:
        method = method or self.entry.get("token_endpoint_auth_methods_supported", ["client_secret_post"])[0]
        own = {} if method == "none" else {"client_secret": self._is_signed if self.entry.get("hook") else None}
        params: dict[str, Want] = {"client_id": self.client_id}
        params |= {name: want or self.client_secret for name, want in own.items()}
        headers = {n.lower(): w for n, w in self._filled(self.entry.get("token_request_headers", {}), {}).items()}
        if method == "client_secret_basic":
            pair = f"{quote(self.client_id, safe='')}:{quote(self.client_secret, safe='')}"
            return {}, {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}", **headers}
        return params, headers

    def _is_signed(self, text: str) -> bool:
        try:
            token = jwt.decode(text, CLIENT_KEY, algorithms=["ES256"])
        except (JoseError, ValueError):
            return False
        said = {name: token.claims.get(name) for name in ("iss", "sub", "aud")}
        right = {"iss": self.values["team_id"], "sub": self.client_id, "aud": "https://appleid.apple.com"}
        lives: bool = 0 < token.claims["exp"] - time.time() < 180 * 86400
        known = str(token.header["kid"]) == self.values["key_id"]
        return lives and known and bool(said == right)

    def _own_revocation(self, style: Mapping[str, Any]) -> Wanted:
        token = self.refresh_token if style.get("token") == "refresh_token" else self.access_token
        params = self._filled(style.get("params", {}), {"token": token})
        headers: dict[str, Want] = {}
        auth = style.get("auth", "client")
        if auth == "bearer":
            headers = {"authorization": f"Bearer {token}"}
        elif auth != "none":
            proof, headers = self._proof("client_secret_basic" if auth == "basic" else "")
            params |= proof
        more = self._filled(style.get("headers", {}), {"token": token})
        headers |= {name.lower(): want for name, want in more.items()}
        form, method = style.get("format", "form"), style.get("method", "POST")
        return Wanted("revocation", method, fill(self._url(style["url"]), {"token": token}), params, headers, form)


def _named(params: Mapping[str, Want], names: Mapping[str, str]) -> dict[str, Want]:
    return {names.get(name, name): want for name, want in params.items() if names.get(name, name)}


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
