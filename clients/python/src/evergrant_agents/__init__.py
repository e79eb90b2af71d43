"""Call providers' APIs through evergrant. Whoever calls never holds a token that a provider would take."""

import json as jsonlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, Self
from urllib.parse import quote

import httpx2

__all__ = [
    "App",
    "ApprovalRefused",
    "ApprovalRequired",
    "AsyncClient",
    "AsyncProxyTransport",
    "CallsUsedUp",
    "Client",
    "ConnectionRequired",
    "CredentialRefused",
    "EvergrantError",
    "InDoubt",
    "NotAllowed",
    "ProxyTransport",
    "RateLimited",
    "Session",
    "SeveralConnections",
    "Unavailable",
    "UnusableAnswer",
    "create_session",
    "create_session_async",
]

SECONDS = httpx2.Timeout(75.0, connect=10.0)
"""evergrant waits up to a minute for a provider's answer to begin."""


class EvergrantError(Exception):
    """evergrant answered, and not the provider. The message says what to do."""

    def __init__(self, answer: httpx2.Response | None, message: str) -> None:
        """`answer` has been read; None where there was none."""
        told = _fields(answer)
        super().__init__(str(told.get("errorMessage") or told.get("errorDescription") or message))
        self.status = answer.status_code if answer is not None else 0
        """The HTTP status; 0 where nothing answered."""
        self.code = str(told.get("errorCode", ""))
        details = told.get("details")
        self.details: Mapping[str, Any] = details if isinstance(details, dict) else {}
        self.request_id = str(told.get("requestId", ""))
        self.retry_after = _seconds(answer)
        """After how many seconds to try again, where evergrant says so; else None."""


class CredentialRefused(EvergrantError):
    """The session has ended or was revoked, or the key is not one: mint another session."""


class ConnectionRequired(EvergrantError):
    """Nobody has connected this app for this owner, or the connection no longer works."""

    @property
    def url(self) -> str:
        """The link for the person, and for nobody else; "" where the session may not connect."""
        return str(self.details.get("connectUrl", ""))


class SeveralConnections(EvergrantError):
    """Several connections match: name one as `account`."""

    @property
    def accounts(self) -> Sequence[Mapping[str, Any]]:
        """`externalIdentifier`, `tokenSub` and `scopes` of each."""
        found = self.details.get("accounts")
        return found if isinstance(found, list) else []


class ApprovalRequired(EvergrantError):
    """The owner has to approve this very request: send the same again with `approval_id` afterwards."""

    @property
    def url(self) -> str:
        """Where the person says yes or no."""
        return str(self.details.get("approvalUrl", ""))

    @property
    def approval_id(self) -> str:
        """What to send with the same request."""
        return str(self.details.get("approvalId", ""))

    @property
    def expires_at(self) -> datetime | None:
        """Until when the person can decide."""
        return _moment(self.details.get("expiresAt"))


class NotAllowed(EvergrantError):
    """A policy or the session forbids this call."""

    @property
    def rule(self) -> str:
        """What forbids it."""
        return str(self.details.get("rule", ""))


class ApprovalRefused(NotAllowed):
    """The owner said no, or the approval is for another request, used or over."""


class CallsUsedUp(NotAllowed):
    """The session has made as many calls as it may: mint another."""


class RateLimited(EvergrantError):
    """Too many calls: wait `retry_after` seconds."""


class Unavailable(EvergrantError):
    """The provider or evergrant was not reached. Nothing was sent: it is safe to repeat the call."""


class InDoubt(EvergrantError):
    """The call was sent, and no answer came. Repeat it only if it does no harm twice."""


class UnusableAnswer(EvergrantError):
    """What the provider answered is no answer."""


_BY_CODE: Mapping[str, type[EvergrantError]] = {
    "E111504": ConnectionRequired,
    "E111505": Unavailable,
    "E111506": UnusableAnswer,
    "E111511": SeveralConnections,
    "E111512": CallsUsedUp,
    "E111513": ApprovalRequired,
    "E111514": ApprovalRefused,
    "E111515": InDoubt,
    "E130429": RateLimited,
}
_BY_STATUS: Mapping[int, type[EvergrantError]] = {
    401: CredentialRefused,
    403: NotAllowed,
    429: RateLimited,
    503: Unavailable,
    504: InDoubt,
}


@dataclass(frozen=True, kw_only=True)
class App:
    """What a session may do with one app. It narrows what policies and the connection allow, and widens nothing."""

    app_id: str = field(kw_only=False)
    scopes: Sequence[str] = ()
    account: str | None = None
    """The external identifier of the only connection, where the owner has several."""
    access: Literal["read", "write"] = "read"
    methods: Sequence[str] = ()
    paths: Sequence[str] = ()
    """Only below these: `*` is one segment, `**` any number."""
    approve: Literal["never", "writes", "always"] = "never"
    """Which calls the owner approves, each by itself."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """A session, and the only copy of its key."""

    id: str
    key: str = field(repr=False)
    expires_at: datetime | None
    mcp_url: str
    proxy_urls: Mapping[str, str]
    """Where a provider's SDK finds each app's API, by the app's id."""


def create_session(
    evergrant: str,
    credential: str,
    *,
    apps: Sequence[App | str],
    user_id: str = "",
    tenant_id: str = "",
    agent: str,
    agent_name: str = "",
    connect: bool = False,
    ttl_seconds: int = 900,
    max_calls: int | None = None,
    permitted_ips: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    transport: httpx2.BaseTransport | None = None,
) -> Session:
    """Mint a session for one owner. A backend does this, and gives the agent the key.

    Args:
        evergrant: its address.
        credential: `PROJECT_ID:MANAGEMENT_KEY`.
        apps: what the session may call; an id alone means reading.
        user_id: whose connections; with `tenant_id`, the user in that tenant.
        tenant_id: alone, the tenant's own connections.
        agent: the agent's id, by which policies and the log know it.
        agent_name: what people read on pages.
        connect: whether it may begin connect trips, for links to the owner.
        ttl_seconds: at most a day.
        max_calls: after how many calls it ends.
        permitted_ips: the only addresses that may use it.
        labels: yours, to find it by.
        transport: another way to evergrant.

    Raises:
        EvergrantError: evergrant refused; the message names the field.
    """
    with httpx2.Client(transport=transport, timeout=SECONDS) as http:
        try:
            answer = http.post(
                _mint_url(evergrant),
                headers=_bearer(credential),
                json=_asked(
                    apps, user_id, tenant_id, agent, agent_name, connect, ttl_seconds, max_calls, permitted_ips, labels
                ),
            )
        except httpx2.TransportError as error:
            raise _lost(error) from error
    return _session(answer)


async def create_session_async(
    evergrant: str,
    credential: str,
    *,
    apps: Sequence[App | str],
    user_id: str = "",
    tenant_id: str = "",
    agent: str,
    agent_name: str = "",
    connect: bool = False,
    ttl_seconds: int = 900,
    max_calls: int | None = None,
    permitted_ips: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    transport: httpx2.AsyncBaseTransport | None = None,
) -> Session:
    """Do the same as `create_session`, without blocking the event loop."""
    async with httpx2.AsyncClient(transport=transport, timeout=SECONDS) as http:
        try:
            answer = await http.post(
                _mint_url(evergrant),
                headers=_bearer(credential),
                json=_asked(
                    apps, user_id, tenant_id, agent, agent_name, connect, ttl_seconds, max_calls, permitted_ips, labels
                ),
            )
        except httpx2.TransportError as error:
            raise _lost(error) from error
    return _session(answer)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """One call, as it goes to evergrant."""

    app_id: str
    method: str
    path: str
    params: Any = None
    json: Any = None
    data: Mapping[str, Any] | None = None
    content: str | bytes | Iterable[bytes] | AsyncIterable[bytes] | None = None
    headers: Mapping[str, str] | None = None
    account: str | None = None
    scopes: Sequence[str] = ()
    base: str = ""
    approval_id: str = ""
    retries: int = 0

    BODY: ClassVar = ("json", "data", "content", "params")

    def arguments(self, evergrant: str, owner: Mapping[str, str]) -> dict[str, Any]:
        """Return what `build_request` takes."""
        ours = {**owner, "Evergrant-Connect": "1"}
        if self.account is not None:
            ours["Evergrant-External-Identifier"] = self.account
        if self.scopes:
            ours["Evergrant-Scopes"] = " ".join(self.scopes)
        if self.base:
            ours["Evergrant-Base"] = self.base
        if self.approval_id:
            ours["Evergrant-Approval"] = self.approval_id
        if self.retries:
            ours |= {"Evergrant-Retry": str(self.retries), "Evergrant-Max-Wait": "20"}
        given = {name: getattr(self, name) for name in self.BODY if getattr(self, name) is not None}
        url = f"{_proxy_url(evergrant, self.app_id)}/{self.path.removeprefix('/')}"
        return {"method": self.method, "url": url, "headers": {**(self.headers or {}), **ours}, **given}


class Client:
    """Calls apps' APIs with a session's key, or with a management key for the owner named here.

    Close it, or use it in a `with` block.
    """

    def __init__(
        self,
        evergrant: str,
        credential: str,
        *,
        user_id: str = "",
        tenant_id: str = "",
        transport: httpx2.BaseTransport | None = None,
        timeout: httpx2.Timeout = SECONDS,
    ) -> None:
        """`credential`: a session's key or a user's token; or `PROJECT_ID:MANAGEMENT_KEY`, which needs an owner."""
        self._evergrant, self._owner = evergrant.rstrip("/"), _owner(user_id, tenant_id)
        self._http = httpx2.Client(headers=_bearer(credential), transport=transport, timeout=timeout)

    def request(
        self,
        app_id: str,
        method: str,
        path: str,
        *,
        params: Any = None,
        json: Any = None,
        data: Mapping[str, Any] | None = None,
        content: str | bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        account: str | None = None,
        scopes: Sequence[str] = (),
        base: str = "",
        approval_id: str = "",
        retries: int = 0,
    ) -> httpx2.Response:
        """Make one call, and return the provider's answer, whatever its status is.

        Args:
            app_id: the app.
            method: the HTTP method.
            path: the provider's, below the app's API address. It is sent as it stands.
            params: the query, `json`, `data` (a form) and `content`: the body, as httpx2 takes them.
            json: see `params`.
            data: see `params`.
            content: see `params`.
            headers: the provider's own, such as `Accept`.
            account: which of several connections, by its external identifier.
            scopes: what the connection must have.
            base: one of the app's further bases, by name.
            approval_id: of an approval for exactly this request.
            retries: how often an answer that says when to come again is waited for, up to 3.

        Raises:
            ConnectionRequired: the person has to connect first.
            ApprovalRequired: the person has to say yes first.
            EvergrantError: anything else that is evergrant's answer and not the provider's.
        """
        asked = _Asked(
            app_id=app_id,
            method=method,
            path=path,
            params=params,
            json=json,
            data=data,
            content=content,
            headers=headers,
            account=account,
            scopes=scopes,
            base=base,
            approval_id=approval_id,
            retries=retries,
        )
        with self._sent(asked) as answer:
            answer.read()
            return answer

    @contextmanager
    def stream(self, app_id: str, method: str, path: str, **options: Any) -> Iterator[httpx2.Response]:
        """Make one call, and yield the provider's answer before its body is read. The options are those of `request`.

        Raises:
            EvergrantError: as `request`.
        """
        with self._sent(_Asked(app_id=app_id, method=method, path=path, **options)) as answer:
            yield answer

    @contextmanager
    def _sent(self, asked: _Asked) -> Iterator[httpx2.Response]:
        request = self._http.build_request(**asked.arguments(self._evergrant, self._owner))
        try:
            answer = self._http.send(request, stream=True)
            if _is_ours(answer):
                answer.read()
        except httpx2.TransportError as error:
            raise _lost(error) from error
        try:
            _raise_ours(answer)
            yield answer
        finally:
            answer.close()

    def close(self) -> None:
        """Close the connections to evergrant."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient:
    """The same as `Client`, without blocking the event loop."""

    def __init__(
        self,
        evergrant: str,
        credential: str,
        *,
        user_id: str = "",
        tenant_id: str = "",
        transport: httpx2.AsyncBaseTransport | None = None,
        timeout: httpx2.Timeout = SECONDS,
    ) -> None:
        """See `Client`."""
        self._evergrant, self._owner = evergrant.rstrip("/"), _owner(user_id, tenant_id)
        self._http = httpx2.AsyncClient(headers=_bearer(credential), transport=transport, timeout=timeout)

    async def request(
        self,
        app_id: str,
        method: str,
        path: str,
        *,
        params: Any = None,
        json: Any = None,
        data: Mapping[str, Any] | None = None,
        content: str | bytes | AsyncIterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        account: str | None = None,
        scopes: Sequence[str] = (),
        base: str = "",
        approval_id: str = "",
        retries: int = 0,
    ) -> httpx2.Response:
        """Make one call; see `Client.request`.

        Raises:
            EvergrantError: as there.
        """
        asked = _Asked(
            app_id=app_id,
            method=method,
            path=path,
            params=params,
            json=json,
            data=data,
            content=content,
            headers=headers,
            account=account,
            scopes=scopes,
            base=base,
            approval_id=approval_id,
            retries=retries,
        )
        async with self._sent(asked) as answer:
            await answer.aread()
            return answer

    @asynccontextmanager
    async def stream(self, app_id: str, method: str, path: str, **options: Any) -> AsyncIterator[httpx2.Response]:
        """Make one call, and yield the provider's answer before its body is read; see `Client.stream`.

        Raises:
            EvergrantError: as there.
        """
        async with self._sent(_Asked(app_id=app_id, method=method, path=path, **options)) as answer:
            yield answer

    @asynccontextmanager
    async def _sent(self, asked: _Asked) -> AsyncIterator[httpx2.Response]:
        request = self._http.build_request(**asked.arguments(self._evergrant, self._owner))
        try:
            answer = await self._http.send(request, stream=True)
            if _is_ours(answer):
                await answer.aread()
        except httpx2.TransportError as error:
            raise _lost(error) from error
        try:
            _raise_ours(answer)
            yield answer
        finally:
            await answer.aclose()

    async def aclose(self) -> None:
        """Close the connections to evergrant."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class _Routes:
    """Which of a provider's URLs are which app's."""

    def __init__(self, evergrant: str, credential: str, bases: Mapping[str, str | tuple[str, str]]) -> None:
        self._ours = {**_bearer(credential), "Evergrant-Connect": "1"}
        self._bases = []
        for base, named in bases.items():
            app_id, further = (named, "") if isinstance(named, str) else named
            url = httpx2.URL(base)
            headers = {"Evergrant-Base": further} if further else {}
            self._bases.append((url, url.raw_path.rstrip(b"/"), httpx2.URL(_proxy_url(evergrant, app_id)), headers))
        # The longest first: one app's base may stand below another's.
        self._bases.sort(key=lambda known: -len(known[1]))

    def turned(self, request: httpx2.Request) -> httpx2.Request | None:
        """Return the request as it goes to evergrant, its path and query byte for byte; None for no app's."""
        raw = request.url.raw_path
        for base, path, proxy, headers in self._bases:
            if _origin(base) == _origin(request.url) and raw.startswith(path) and raw[len(path) :][:1] in b"/?":
                rest = raw[len(path) :]
                url = proxy.copy_with(raw_path=proxy.raw_path + (rest if rest.startswith(b"/") else b"/" + rest))
                turned = httpx2.Request(
                    request.method,
                    url,
                    headers=request.headers,
                    stream=request.stream,
                    extensions=request.extensions,
                )
                # Whatever a library was given as a credential is overwritten here, and goes nowhere.
                turned.headers.update({"Host": url.netloc.decode("ascii"), **self._ours, **headers})
                return turned
        return None


class ProxyTransport(httpx2.BaseTransport):
    """Sends a provider's URLs through evergrant, for code that knows only those.

    `httpx2.Client(transport=ProxyTransport(evergrant, key, {"https://api.github.com": "github"}))`. A request may carry
    evergrant's own headers, such as `Evergrant-Approval`.
    """

    def __init__(
        self,
        evergrant: str,
        credential: str,
        bases: Mapping[str, str | tuple[str, str]],
        *,
        through: httpx2.BaseTransport | None = None,
        others: httpx2.BaseTransport | None = None,
    ) -> None:
        """Send what is below a base through evergrant.

        Args:
            evergrant: its address.
            credential: a session's key or a user's token.
            bases: the apps by the address of their API; a pair is an app and the name of a further base.
            through: how evergrant is reached.
            others: what takes requests to other hosts; without it they are refused.
        """
        self._routes = _Routes(evergrant.rstrip("/"), credential, bases)
        self._through, self._others = through or httpx2.HTTPTransport(), others

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request.

        Raises:
            EvergrantError: the answer is evergrant's and not the provider's.
            httpx2.UnsupportedProtocol: it is for no app's API.
        """
        turned = self._routes.turned(request)
        if turned is None:
            if self._others is None:
                raise _no_app(request)
            return self._others.handle_request(request)
        answer = self._through.handle_request(turned)
        if _is_ours(answer):
            answer.read()
            _raise_ours(answer)
        return answer

    def close(self) -> None:
        """Close the transports behind it."""
        self._through.close()
        if self._others is not None:
            self._others.close()


class AsyncProxyTransport(httpx2.AsyncBaseTransport):
    """The same as `ProxyTransport`, for `httpx2.AsyncClient`."""

    def __init__(
        self,
        evergrant: str,
        credential: str,
        bases: Mapping[str, str | tuple[str, str]],
        *,
        through: httpx2.AsyncBaseTransport | None = None,
        others: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        """See `ProxyTransport`."""
        self._routes = _Routes(evergrant.rstrip("/"), credential, bases)
        self._through, self._others = through or httpx2.AsyncHTTPTransport(), others

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; see `ProxyTransport.handle_request`.

        Raises:
            EvergrantError: as there.
            httpx2.UnsupportedProtocol: as there.
        """
        turned = self._routes.turned(request)
        if turned is None:
            if self._others is None:
                raise _no_app(request)
            return await self._others.handle_async_request(request)
        answer = await self._through.handle_async_request(turned)
        if _is_ours(answer):
            await answer.aread()
            _raise_ours(answer)
        return answer

    async def aclose(self) -> None:
        """Close the transports behind it."""
        await self._through.aclose()
        if self._others is not None:
            await self._others.aclose()


def _bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


def _owner(user_id: str, tenant_id: str) -> dict[str, str]:
    named = {"Evergrant-User": user_id, "Evergrant-Tenant": tenant_id}
    return {name: value for name, value in named.items() if value}


def _proxy_url(evergrant: str, app_id: str) -> str:
    return f"{evergrant.rstrip('/')}/v1/proxy/{quote(app_id, safe='')}"


def _mint_url(evergrant: str) -> str:
    return f"{evergrant.rstrip('/')}/v1/mgmt/outbound/session/create"


def _asked(
    apps: Sequence[App | str],
    user_id: str,
    tenant_id: str,
    agent: str,
    agent_name: str,
    connect: bool,
    ttl_seconds: int,
    max_calls: int | None,
    permitted_ips: Sequence[str],
    labels: Mapping[str, str] | None,
) -> dict[str, Any]:
    listed = [_app(App(app) if isinstance(app, str) else app) for app in apps]
    body = {
        "userId": user_id,
        "tenantId": tenant_id,
        "apps": listed,
        "agent": {"id": agent, "name": agent_name or agent},
        "ttlSeconds": ttl_seconds,
        "connect": connect,
        "maxCalls": max_calls,
        "permittedIps": list(permitted_ips),
        "labels": dict(labels or {}),
    }
    return {name: value for name, value in body.items() if value not in ("", None, [], {}, False)}


def _app(app: App) -> dict[str, Any]:
    body = {
        "appId": app.app_id,
        "scopes": list(app.scopes),
        "externalIdentifier": app.account,
        "access": app.access,
        "methods": list(app.methods),
        "paths": list(app.paths),
        "approve": app.approve,
    }
    return {name: value for name, value in body.items() if value not in (None, [])}


def _session(answer: httpx2.Response) -> Session:
    if answer.status_code != 200:
        raise _error(answer)
    told = answer.json()
    session = told["session"]
    return Session(
        id=session["id"],
        key=told["key"],
        expires_at=_moment(session.get("expiresAt")),
        mcp_url=session.get("mcpUrl", ""),
        proxy_urls=session.get("proxyUrls", {}),
    )


def _is_ours(answer: httpx2.Response) -> bool:
    # A reverse proxy between says nothing of the sort, and neither is it the provider.
    return answer.status_code >= 400 and answer.headers.get("Evergrant-Source") != "provider"


def _raise_ours(answer: httpx2.Response) -> None:
    if _is_ours(answer):
        raise _error(answer)


def _error(answer: httpx2.Response) -> EvergrantError:
    code = str(_fields(answer).get("errorCode", ""))
    kind = _BY_CODE.get(code) or _BY_STATUS.get(answer.status_code, EvergrantError)
    return kind(answer, f"evergrant answered {answer.status_code}.")


def _lost(error: httpx2.TransportError) -> EvergrantError:
    if isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)):
        return Unavailable(None, "evergrant was not reached: nothing was sent.")
    return InDoubt(None, "The call was sent, and no answer came from evergrant.")


def _no_app(request: httpx2.Request) -> httpx2.UnsupportedProtocol:
    return httpx2.UnsupportedProtocol(f"{request.url.host} is no app's API: name its base address in `bases`.")


def _fields(answer: httpx2.Response | None) -> Mapping[str, Any]:
    if answer is None:
        return {}
    try:
        told = jsonlib.loads(answer.content)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _seconds(answer: httpx2.Response | None) -> float | None:
    text = answer.headers.get("Retry-After", "") if answer is not None else ""
    return float(text) if text.isdecimal() else None


def _moment(value: object) -> datetime | None:
    # Moments travel as epoch seconds, mostly as text; "" and 0 stand for none.
    text = str(value)
    return datetime.fromtimestamp(int(text), UTC) if text.isdecimal() and text != "0" else None


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
