"""The vendor's published Python SDK, unmodified, against a real `evergrant serve`: both clients, called alike."""

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from descope import AuthException, DescopeClient
from descope.descope_client_async import DescopeClientAsync

from tests.infra.databases import settings_for
from tests.infra.installation import BACK, Backend, Browser, Provider, new_project, practice_provider
from tests.infra.issuer import Issuer
from tests.infra.people import trust
from tests.infra.scripted import serving
from tests.infra.serving import ServerProcess, environment_of

RETRY_DELAYS = ("descope.http_client._RETRY_DELAYS_SECONDS", "descope.http_client_async._RETRY_DELAYS_SECONDS")


class Waiting:
    """An object of the SDK whose coroutines are waited for, so that both of its clients are called alike."""

    def __init__(self, target: Any, run: Callable[[Any], Any]) -> None:
        self._target = target
        self._run = run

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return Waiting(found, self._run)

        def call(*arguments: Any, **named: Any) -> Any:
            result = found(*arguments, **named)
            return self._run(result) if inspect.isawaitable(result) else result

        return call


@dataclass(frozen=True)
class Served:
    """A served installation, its provider, and an identity provider that its project trusts."""

    backend: Backend
    provider: Provider
    identity: Issuer


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One installation on each database for this folder: each test has a user, or an app, of its own."""
    with contextlib.ExitStack() as stack:
        settings = stack.enter_context(settings_for(request, tmp_path_factory))
        made = new_project(settings)
        server = ServerProcess(environment_of(settings), log=settings.data_dir / "log")
        provider = stack.enter_context(practice_provider(server.url))
        identity = stack.enter_context(serving(Issuer()))
        stack.enter_context(server)
        backend = Backend(server.url, made.project_id, made.management_key)
        stack.callback(backend.http.close)
        backend.create_app(provider.registration)
        trust(backend, identity)
        yield Served(backend, provider, identity)


@pytest.fixture
def backend(served: Served) -> Backend:
    return served.backend


MakeClient = Callable[..., Waiting]


@pytest.fixture(params=["sync", "async"])
def make_client(request: pytest.FixtureRequest, served: Served) -> Iterator[MakeClient]:
    """Construct the SDK's client as its documentation does, but for the base URL."""
    with contextlib.ExitStack() as stack:
        loop = asyncio.new_event_loop()
        stack.callback(loop.close)

        def make(**fields: Any) -> Waiting:
            usual = {
                "project_id": served.backend.project_id,
                "management_key": served.backend.management_key,
                "base_url": served.backend.url,
            }
            arguments = {name: value for name, value in (usual | fields).items() if value is not None}
            if request.param == "sync":
                return Waiting(DescopeClient(**arguments), loop.run_until_complete)
            client = DescopeClientAsync(**arguments)
            stack.callback(lambda: loop.run_until_complete(client.aclose()))
            return Waiting(client, loop.run_until_complete)

        yield make


@pytest.fixture
def sdk(make_client: MakeClient) -> Waiting:
    """The client's management calls, with a key that may do everything."""
    managed: Waiting = make_client().mgmt
    return managed


@pytest.fixture
def apps(sdk: Waiting) -> Waiting:
    """`client.mgmt.outbound_application`."""
    calls: Waiting = sdk.outbound_application
    return calls


@pytest.fixture
def own_app(backend: Backend, served: Served) -> Iterator[Callable[..., str]]:
    """Create an app at the practice provider, of the test's own, that differs from the usual one in these fields."""
    made: list[str] = []

    def create(**fields: Any) -> str:
        made.append(backend.new_app(served.provider.registration, **fields))
        return made[-1]

    yield create
    for app_id in made:
        backend.post("app/delete", {"id": app_id})


def connect(backend: Backend, user_id: str, **fields: Any) -> None:
    """Connect a user through a browser."""
    browser = Browser()
    url = backend.connect_url(user_id, **{"options": {"redirectUrl": BACK}, **fields})
    assert browser.connect(url)["outboundStatus"] == "connected"
    browser.http.close()


def refused(call: Callable[[], Any], status: int, code: str) -> AuthException:
    """Check that a call raises what its users catch, with our error in it, and return that."""
    with pytest.raises(AuthException) as raised:
        call()
    error: AuthException = raised.value
    assert (error.status_code, error.error_type) == (status, "server error"), error
    assert f'"errorCode":"{code}"' in str(error.error_message).replace(": ", ":"), error
    return error
