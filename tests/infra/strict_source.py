"""A provider that gives tokens for credentials exactly as an entry says, and takes nothing else; and its API.

What an assertion is worth, a library decides: joserfc checks its signature, its header and its claims.
"""

import base64
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey, RSAKey

from tests.infra.conformance_wants import placed
from tests.infra.credential_samples import all_fields, fields_for, key_for, public_pem, public_sha256
from tests.infra.entries import Entry, fill, sample
from tests.infra.scripted import Answer, Request, answer

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
LIFETIME = 3600


@dataclass
class StrictSource:
    """One entry whose tokens are obtained, or whose keys are kept: its provider with its API."""

    entry: Entry
    base: str
    complaints: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    """What was asked, in its order: `token`, `login 0`, `api`."""
    token: str = ""
    callback: str = ""
    """Our app's, where somebody connects it in the browser."""
    expires: int = LIFETIME
    count: int = 0

    def __post_init__(self) -> None:
        self.kind: str = self.entry["app_type"]
        self.variables: dict[str, dict[str, Any]] = self.entry.get("variables", {})
        followers = {name: v for name, v in self.variables.items() if v.get("source") == "variable"}
        self.values = {n: sample(n, v, self.base) for n, v in self.variables.items() if n not in followers}
        self.values |= {name: str(v["values"][self.values[v["from"]]]) for name, v in followers.items()}
        self.entered = fields_for(self.entry)
        self.fields = all_fields(self.entry, self.entered)
        self.assertion: dict[str, Any] = self.entry.get("assertion", {})
        self.client_id = self.fields.get("client_id") or f"client-{self.entry['id']}"
        self.client_secret = self.fields.get("client_secret") or "s3cret +/&%"
        self.signing_key = key_for(self.assertion) if self.assertion else ""
        self.scopes = [fill(scope, self.values) for scope in self.entry.get("default_scopes", [])]

    @property
    def scope(self) -> str:
        return str(self.entry.get("scope_separator", " ")).join(self.scopes)

    @property
    def known(self) -> dict[str, str]:
        """Everything that a text of the entry may name."""
        own = {"client_id": self.client_id, "client_secret": self.client_secret, "scope": self.scope}
        return {**self.values, **own, **self.fields}

    def of_source(self, *sources: str) -> dict[str, str]:
        """Return the variables' values that come from these sources."""
        return {n: self.values[n] for n, v in self.variables.items() if v.get("source", "app") in sources}

    def answer(self, seen: Request) -> Answer:
        """Check a request and answer it."""
        if self.kind == "installation" and (given := self._answer_of_trip(seen)) is not None:
            return given
        token_url = self.entry.get("token_endpoint", "")
        if token_url and seen.path == urlsplit(fill(token_url, self.values)).path:
            return self._answered("token", self._about_token(seen), self._token_answer)
        for number, step in enumerate(self.entry.get("login", [])):
            is_next = f"login {number}" not in self.calls[-number:] if number else True
            if seen.path == urlsplit(fill(step["url"], {**self.known, **self._kept})).path and is_next:
                last = number == len(self.entry["login"]) - 1
                give = self._token_answer if last else partial(self._step_answer, step)
                return self._answered(f"login {number}", self._about_step(seen, step), give)
        return self._answered("api", self._about_check(seen), self._check_answer)

    def _answered(self, call: str, problems: Iterator[str], give: Any) -> Answer:
        self.calls.append(call)
        found = [f"{call}: {problem}" for problem in problems]
        self.complaints += found
        return (400, {"error": "invalid_request"}) if found else (200, give())

    # a trip to install it

    def _answer_of_trip(self, seen: Request) -> Answer | None:
        """Answer what only whoever installs the app brings about; None where a request is none of that."""
        places = {self.entry[name]: name for name in ("authorization_endpoint", "token_endpoint", "installation_check")}
        at = {urlsplit(fill(url, self.values)).path: name for url, name in places.items()}.get(seen.path)
        if at == "authorization_endpoint":
            back = {"code": "code-7", "state": seen.query["state"], "setup_action": "install"}
            back |= {v["from"]: self.values[n] for n, v in self.variables.items() if v.get("source") == "callback"}
            return answer(302, Location=f"{self.callback}?{urlencode(back)}")
        if at == "token_endpoint":
            wanted = {"grant_type": "authorization_code", "code": "code-7", "redirect_uri": self.callback}
            wanted |= {"client_id": self.client_id, "client_secret": self.client_secret}
            problems = _differences("parameter", seen.params, wanted)
            return self._answered("code", problems, lambda: {"access_token": "a-persons", "token_type": "bearer"})
        if at == "installation_check":
            is_theirs = seen.headers.get("authorization") == "Bearer a-persons"
            return self._answered("check", iter(() if is_theirs else ["another's token"]), dict)
        return None

    # tokens

    def _token_answer(self) -> Any:
        self.count += 1
        self.token = f"token-{self.entry['id']}-{self.count}"
        shape = self.entry.get("token_response", {})
        answer: Any = placed({"token_type": "Bearer"}, _first(shape.get("access_token", "/access_token")), self.token)
        for name, value in self.of_source("token").items():
            answer = placed(answer, _first(self.variables[name]["from"]), value)
        if "expires_at" in shape:
            end = time.time() + self.expires
            form = shape.get("expires_at_format", "epoch")
            stated: Any = datetime.fromtimestamp(end, UTC).isoformat() if form == "iso" else int(end)
            return placed(answer, _first(shape["expires_at"]), stated * 1000 if form == "epoch_ms" else stated)
        if "default_expires_in" in self.entry:
            return answer
        scale = {"s": 1.0, "ms": 1000.0, "min": 1 / 60}[shape.get("expires_unit", "s")]
        return placed(answer, _first(shape.get("expires_in", "/expires_in")), int(self.expires * scale))

    def _about_token(self, seen: Request) -> Iterator[str]:
        sent = seen.params
        wanted: dict[str, str] = {"grant_type": "client_credentials"}
        if self.kind == "jwt_bearer":
            yield from self.about_assertion(str(sent.get("assertion", "")))
            wanted = {"grant_type": JWT_BEARER, "assertion": str(sent.get("assertion", ""))}
        elif self.scopes:
            wanted["scope"] = self.scope
        method = self.entry.get("token_endpoint_auth_methods_supported", ["client_secret_post"])[0]
        headers: dict[str, str] = {}
        signs_alone = self.kind == "jwt_bearer" and method == "none"
        if method == "client_secret_basic":
            headers["authorization"] = (
                f"Basic {_b64(quote(self.client_id, safe='') + ':' + quote(self.client_secret, safe=''))}"
            )
        elif method == "client_secret_post":
            wanted |= {"client_id": self.client_id, "client_secret": self.client_secret}
        elif not signs_alone:
            wanted["client_id"] = self.client_id
        if method == "private_key_jwt":
            wanted |= {name: str(sent.get(name, "")) for name in ("client_assertion", "client_assertion_type")}
            yield from self._about_client_assertion(wanted["client_assertion"])
        extra = {n: fill(str(text), self.known) for n, text in self.entry.get("token_params", {}).items()}
        wanted |= {name: text for name, text in extra.items() if text}
        names = {**self.entry.get("parameter_names", {}), **self.entry.get("token_parameter_names", {})}
        wanted = {names.get(name, name): value for name, value in wanted.items() if names.get(name, name)}
        if signs_alone:  # who asks stands in the assertion; a client_id beside it says the same
            sent = {name: value for name, value in sent.items() if name != "client_id"}
        yield from _differences("parameter", sent, wanted)
        more = {n.lower(): fill(text, self.known) for n, text in self.entry.get("token_request_headers", {}).items()}
        for name, value in {**headers, **more}.items():
            if seen.headers.get(name) != value:
                yield f"header {name} is {seen.headers.get(name)!r}, not {value!r}"

    def _about_client_assertion(self, text: str) -> Iterator[str]:
        key = RSAKey.import_key(public_pem(self.client_secret))
        try:
            claims = jwt.decode(text, key, algorithms=[self.entry["token_endpoint_auth_signing_alg"]]).claims
        except (JoseError, ValueError) as error:
            yield f"the client's assertion is not signed as it should be: {type(error).__name__}"
            return
        if (claims["iss"], claims["sub"]) != (self.client_id, self.client_id):
            yield f"the client's assertion is about {claims}"

    def about_assertion(self, text: str) -> Iterator[str]:
        """Say in what a JWT is not what the entry says."""
        alg = self.assertion["alg"]
        named = self.assertion.get("key", "{signing_key}").strip("{}")
        key = self.fields.get(named) or self.signing_key
        try:
            found = jwt.decode(text, _checking_key(alg, key, self.assertion), algorithms=[alg])
        except (JoseError, ValueError) as error:
            yield f"the assertion is not signed as it should be: {type(error).__name__}"
            return
        known = {**self.known, "public_key_sha256": "" if alg.startswith("HS") else public_sha256(key)}
        header = {"alg": alg, "typ": "JWT", **_filled(self.assertion.get("header", {}), known)}
        if dict(found.header) != header:
            yield f"its header is {found.header}, not {header}"
        claims, now = dict(found.claims), time.time()
        issued, ends = claims.pop("iat", 0), claims.pop("exp", 0)
        if abs(issued + self.assertion.get("backdated", 0) - now) > 60 or ends - issued != self.assertion.get(
            "seconds", 300
        ):
            yield f"iat {issued} and exp {ends} are not right at {now:.0f}"
        if bool(claims.pop("jti", "")) != self.assertion.get("jti", False):
            yield "jti is not as it should be"
        wanted = _filled(self.assertion["claims"], known)
        if claims != wanted:
            yield f"its claims are {claims}, not {wanted}"

    def _about_step(self, seen: Request, step: Mapping[str, Any]) -> Iterator[str]:
        known = {**self.known, **self._kept}
        for text in (seen.headers.get("authorization", ""), seen.body.decode()):
            for word in text.replace('"', " ").replace("=", " ").split():
                if word.startswith("eyJ") and self.assertion:
                    yield from self.about_assertion(word)
                    known["assertion"] = word
        if seen.method != step.get("method", "POST"):
            yield f"{seen.method}, not {step.get('method', 'POST')}"
        headers = {name.lower(): fill(text, known) for name, text in step.get("headers", {}).items()}
        if step.get("basic"):
            headers["authorization"] = f"Basic {_b64(fill(step['basic'], known))}"
        for name in {"authorization", *headers}:
            if seen.headers.get(name) != headers.get(name):
                yield f"header {name} is {seen.headers.get(name)!r}, not {headers.get(name)!r}"
        wanted = _filled(step.get("body", {}), known)
        form = step.get("format", "json")
        sent: Any = seen.query if form == "query" else json.loads(seen.body or b"{}") if form == "json" else seen.form
        if form == "query":
            wanted = {**dict(parse_qsl(urlsplit(fill(step["url"], known)).query)), **wanted}
        yield from _differences("member", sent, wanted)

    @property
    def _kept(self) -> dict[str, str]:
        return {name: f"kept-{name}" for step in self.entry.get("login", []) for name in step.get("keep", {})}

    def _step_answer(self, step: Mapping[str, Any]) -> Any:
        answer: Any = {}
        for name, pointer in step.get("keep", {}).items():
            answer = placed(answer, pointer, f"kept-{name}")
        return answer

    # the API

    def carried(self, token: str) -> tuple[dict[str, str], dict[str, str]]:
        """Return the headers, their names in small letters, and the query parameters of a call, as the entry says."""
        api = self.entry.get("api", {})
        how, known = api.get("credential", {}), {**self.known, "token": token}
        name = how.get("name", "Authorization")
        value = fill(how.get("value", "{token}"), known)
        headers = {n.lower(): fill(text, known) for n, text in api.get("headers", {}).items()}
        if "{token}" in api.get("base_url", ""):
            return headers, {}
        if how.get("in") == "basic":
            pair = f"{fill(how.get('username', '{token}'), known)}:{fill(how.get('password', ''), known)}"
            return {**headers, "authorization": f"Basic {_b64(pair)}"}, {}
        if how.get("in") == "query":
            return headers, {name: value}
        return {**headers, name.lower(): how.get("prefix", "Bearer " if name == "Authorization" else "") + value}, {}

    def _about_check(self, seen: Request) -> Iterator[str]:
        api = self.entry.get("api", {})
        method, _, place = api.get("check", "").partition(" ")
        if not place:
            yield f"nothing is at {seen.method} {seen.path}"
            return
        token = self.token or self.fields.get("token", "")
        known = {**self.known, "token": quote(token, safe="")}
        url = urlsplit(fill(place if "://" in place else api["base_url"] + place, known))
        if (seen.method, seen.path) != (method, url.path):
            yield f"{seen.method} {seen.path}, not {method} {url.path}"
        headers, query = self.carried(token)
        for name in {"authorization", *headers}:
            if seen.headers.get(name) != headers.get(name):
                yield f"header {name} is {seen.headers.get(name)!r}, not {headers.get(name)!r}"
        yield from _differences("query parameter", seen.query, {**dict(parse_qsl(url.query)), **query})
        if seen.body.decode() != fill(api.get("check_body", ""), self.values):
            yield f"the body is {seen.body!r}"

    def _check_answer(self) -> Any:
        answer: Any = {"id": 7}
        for pointer in _all(self.entry.get("api", {}).get("check_ok", []))[:1]:
            good = self.entry["api"].get("check_ok_values", [])
            value: Any = good[0] if good else "yes"
            answer = placed(answer, pointer, {"true": True}.get(value, int(value) if value.isdigit() else value))
        return answer


def _checking_key(alg: str, key: str, assertion: Mapping[str, Any]) -> Any:
    if alg.startswith("HS"):
        form = assertion.get("key_encoding", "text")
        raw = bytes.fromhex(key) if form == "hex" else base64.b64decode(key) if form == "base64" else key.encode()
        return OctKey.import_key(raw)
    return (ECKey if alg.startswith("ES") else RSAKey).import_key(public_pem(key))


def _filled(value: Any, known: Mapping[str, str]) -> Any:
    """Fill every text, and leave out those that come out empty or need what nobody knows."""
    if isinstance(value, str):
        return fill(value, known)
    if isinstance(value, list):
        return [_filled(item, known) for item in value]
    if isinstance(value, dict):
        made = {name: _filled(item, known) for name, item in value.items()}
        return {name: item for name, item in made.items() if item != ""}
    return value


def _differences(what: str, sent: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(sent.keys() | wanted.keys()):
        if sent.get(name) != wanted.get(name):
            yield f"{what} {name} is {sent.get(name)!r}, not {wanted.get(name)!r}"


def _first(places: str | list[str]) -> str:
    return places if isinstance(places, str) else places[0]


def _all(places: str | list[str]) -> list[str]:
    return [places] if isinstance(places, str) else list(places)


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
