"""A provider that behaves as a catalogue entry says, and takes nothing else: every wish of it is checked strictly.

`complaints` is what was wrong with the requests that came; `refusals` are the requests that were right and came at the
wrong time (a dead refresh token, a refresh too early). `overrides` change the next answers of one kind.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from html import escape
from typing import Any
from urllib.parse import urlencode

from joserfc import jwt
from joserfc.jwk import ECKey

from tests.infra.conformance_demands import Demands
from tests.infra.conformance_wants import placed
from tests.infra.entries import fill
from tests.infra.scripted import Answer, Request, ScriptedProvider, answer, serving
from tests.infra.strict_source import StrictSource

PERSON = "person-7"
LIFETIMES = {"connect": 7200, "refresh": 10800}
"""Seconds that a provider states; different, so that one is not taken for the other."""
SIGNING_KEY = ECKey.generate_key("P-256", {"kid": "provider-key", "use": "sig"})


class ConformingProvider(Demands):
    """One entry, come to life."""

    def answer(self, seen: Request) -> Answer:
        """Check a request and answer it."""
        found = [wanted for wanted in self.wanted(seen) if wanted.may_be(seen)]
        wanted = next((one for one in found if len(found) == 1 or one.is_meant_by(seen)), None)
        if wanted is None:
            self.complaints.append(f"nothing is at {seen.method} {seen.path}")
            return self._error("not_found", 404)
        self.seen.append((wanted.role, seen))
        problems = list(wanted.complaints(seen))
        self.complaints += problems
        override = self.overrides[wanted.role].pop(0) if self.overrides[wanted.role] else None
        if problems:
            given = self._error("invalid_request")
        elif override is not None and override.instead:
            given = override.change(None)
        else:
            given = getattr(self, f"_answer_{wanted.role}")(seen)
            given = override.change(given) if override is not None else given
        return given if isinstance(given, bytes | tuple) else (200, given)

    def _error(self, code: str, status: int = 400, description: str = "") -> Answer:
        answer: Any = placed({}, self._places("error")[0], _as_number(code))
        return status, placed(answer, self._places("error_description")[0], description) if description else answer

    def _dead(self) -> Answer:
        """Refuse a dead refresh token, or a token that can no longer be traded, in the entry's own words."""
        self.refusals.append("a dead refresh token")
        known = self.entry.get("dead_refresh_token") or [{"error": "invalid_grant"}]
        words = known[self.dead_answer]
        description = f"Sorry: {words['description'].upper()} (42)." if "description" in words else ""
        return self._error(words.get("error", "something_else"), words.get("status", 400), description)

    def _places(self, name: str) -> list[str]:
        places = self.entry.get("token_response", {}).get(name, f"/{name}")
        return [places] if isinstance(places, str) else list(places)

    def _answer_authorization(self, seen: Request) -> Answer:
        self.count += 1
        sent = seen.params
        code = f"code-{self.count}"
        names = self.authorization_names
        self.codes[code] = {
            "challenge": str(sent.get("code_challenge", "")),
            "state": str(sent[names.get("state", "state")]),
            "nonce": str(sent.get("nonce", "")),
        }
        brought = {v["from"]: self.values[n] for n, v in self.variables.items() if v.get("source") == "callback"}
        called = self.entry.get("callback_parameter_names", {}).get("code", "code")
        params = {called: code, "state": self.codes[code]["state"], **brought, **self.callback_params}
        params = {name: value for name, value in params.items() if value}
        if sent.get("response_mode") == "form_post":
            inputs = "".join(f'<input type="hidden" name="{n}" value="{escape(v)}">' for n, v in params.items())
            form = f'<form method="post" action="{escape(self.callback)}">{inputs}</form>'
            return answer(200, form.encode(), "text/html")
        return answer(302, Location=f"{self.callback}?{urlencode(params)}")

    def _answer_token(self, seen: Request) -> Any:
        code = self.codes.pop(str(seen.params[self.token_names.get("code", "code")]))
        self.dead, self.spent, self.traded = False, {}, False
        return self._tokens("connect", nonce=code["nonce"])

    def _answer_trade(self, seen: Request) -> Any:
        if self.dead:
            return self._dead()
        self.traded, first = True, not self.traded
        return self._tokens("connect" if first else "refresh")

    def _answer_refresh(self, seen: Request) -> Any:
        sent = str(seen.params[self.token_names.get("refresh_token", "refresh_token")])
        margin = self.entry.get("refresh_margin")
        if margin is not None and self.ends_at - time.time() > margin:
            self.refusals.append("a refresh too early")
            return self._error("too_early")
        if sent != self.refresh_token and not self.dead:
            until = self.spent.pop(sent, 0.0) + self.entry.get("refresh_token_reuse_seconds", 0)
            self.dead = time.time() > until
        if self.dead or not self.has_refresh_tokens:
            return self._dead()
        return self._tokens("refresh")

    def _tokens(self, kind: str, *, nonce: str = "") -> Any:
        """Issue tokens and return the answer, as it is recorded: everything at its place, in its unit."""
        self.count += 1
        pick = 0 if kind == "connect" else -1
        self.access_token = f"at-{self.entry['id']}-{self.count}"
        answer: Any = {"token_type": "Bearer"}
        stated = ["access_token", "refresh_token", *(["scope"] if self.scopes else [])]
        for name in stated if kind == "connect" else ():
            for place in self._places(name)[1:]:  # somebody else's, where the entry says that its own is elsewhere
                answer = placed(answer, place, f"another-{name}")
        answer = placed(answer, self._places("access_token")[pick], self.access_token)
        if self.has_refresh_tokens and (kind == "connect" or self.rotation != "stable"):
            if kind == "connect" or self.rotation == "rotates":
                self.spent[self.refresh_token] = time.time()
                self.refresh_token = f"rt-{self.entry['id']}-{self.count}"
            answer = placed(answer, self._places("refresh_token")[pick], self.refresh_token)
        answer = self._with_lifetime(answer, kind, pick)
        if self.scopes:
            answer = placed(answer, self._places("scope")[pick], self.scope)
        if "error" in self.entry.get("token_response", {}):
            answer = placed(answer, self._places("error")[0], 0)
        if kind == "connect":
            for name, variable in self.variables.items():
                if variable.get("source") == "token":
                    answer = placed(answer, variable["from"], _as_number(self.values[name]))
            answer |= {"id_token": self._id_token(nonce)} if self.signs_in and nonce else {}
        return answer

    def _with_lifetime(self, answer: Any, kind: str, pick: int) -> Any:
        shape = self.entry.get("token_response", {})
        usual = self.entry.get("default_expires_in")
        self.lifetime = LIFETIMES[kind]
        self.ends_at = time.time() + self.lifetime
        if "introspection_endpoint" in self.entry:
            return answer  # it is asked there
        if usual is not None and not (self.never and self.rotation == "rotates"):
            self.lifetime = None if self.never else usual
            return answer
        if "expires_at" in shape:
            end = datetime.fromtimestamp(self.ends_at, UTC)
            form = shape.get("expires_at_format", "epoch")
            stated = end.isoformat() if form == "iso" else int(self.ends_at * (1000 if form == "epoch_ms" else 1))
            return placed(answer, self._places("expires_at")[0], stated)
        scale = {"s": 1.0, "ms": 1000.0, "min": 1 / 60}[shape.get("expires_unit", "s")]
        return placed(answer, self._places("expires_in")[pick], int(self.lifetime * scale))

    def _id_token(self, nonce: str) -> str:
        tenant = "0a1b2c3d-0000-4000-8000-000000000001"
        issuer = fill(self.entry["issuer"], {"tenantid": tenant}, self.values)
        now = int(time.time())
        claims = {"iss": issuer, "tid": tenant, "aud": self.client_id, "sub": PERSON, "iat": now, "exp": now + 600}
        return jwt.encode({"alg": "ES256", "kid": "provider-key"}, {**claims, "nonce": nonce}, SIGNING_KEY)

    def _answer_introspection(self, seen: Request) -> Any:
        return {"active": True, "exp": int(self.ends_at)}

    def _answer_context(self, seen: Request) -> Any:
        answer: Any = None
        for name, variable in self.variables.items():
            if variable.get("source") == "context":
                answer = placed(answer, variable["from"], _as_number(self.values[name]))
        return answer

    def _answer_userinfo(self, seen: Request) -> Any:
        return {"sub": PERSON}

    def _answer_jwks(self, seen: Request) -> Any:
        return {"keys": [SIGNING_KEY.as_dict(private=False)]}

    def _answer_revocation(self, seen: Request) -> Any:
        own = self.entry.get("revocation", {})
        by = own.get("token", "access_token") if own else "refresh_token"
        self.revoked.append(self.access_token if by == "access_token" else self.refresh_token or self.access_token)
        return {} if own and seen.method != "DELETE" else answer(204 if own else 200)


def _as_number(value: str) -> Any:
    return int(value) if value.isdigit() else value


@contextmanager
def conformance_site(*providers: ConformingProvider | StrictSource, port: int) -> Iterator[None]:
    """Run these providers; the base of each is `http://127.0.0.1:PORT/<its id>`."""
    by_id = {provider.entry["id"]: provider for provider in providers}

    def find(request: Request) -> Answer:
        return by_id[request.path.split("/")[1]].answer(request)

    with serving(ScriptedProvider(others=[find]), port=port):
        yield
