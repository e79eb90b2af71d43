"""Where an app's API is: what its catalogue entry says, with the app's own fields in front, and values filled in."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from evergrant import placeholders
from evergrant.broker.apps.api_call import SAFE_IN_PATHS, expected_of
from evergrant.broker.apps.apps import load_app
from evergrant.broker.apps.quirks import has_moved
from evergrant.broker.apps.variables import Values, known_values, template_of
from evergrant.broker.runtime.broker import Broker
from evergrant.catalog.api import Api
from evergrant.catalog.template import Template
from evergrant.db import OutboundApp
from evergrant.errors import InvalidValue, NoApiAddress, UpstreamRejected
from evergrant.oauth2.api_check import Expected
from evergrant.oauth2.egress import origin_of_url

_SLASHES = re.compile(r"/+")


@dataclass(frozen=True, slots=True)
class Base:
    """One of an app's bases, with the values of the app and of one connection."""

    name: str
    """Empty for the main one."""
    url: str = field(repr=False)
    """Without a slash at its end. It can hold a token."""
    own_paths: frozenset[str] = field(repr=False)
    """The template's own endpoints behind this base, plainly written: they hand out credentials."""
    origin: str = field(init=False, repr=False)
    """Its scheme and authority."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "origin", origin_of_url(self.url))

    def is_own_endpoint(self, readings: Iterable[str]) -> bool:
        """Tell whether a path, in one of its readings, is an endpoint of the template's own."""
        return bool(self.own_paths) and any(_plainly(path) in self.own_paths for path in readings)

    def below(self, url: str) -> str | None:
        """Return path and query of a URL as they stand behind this base; None where it is not inside."""
        rest = url.removeprefix(self.url)
        if rest == url or (rest and rest[0] not in "/?"):
            return None
        return rest if rest.startswith("/") else f"/{rest}"


@dataclass(frozen=True, slots=True)
class AppApi:
    """An app's API, without a connection's values."""

    app: OutboundApp
    template: Template | None
    """None where there is no entry, or the app's credentials go to another server than its entry says."""
    api: Api
    expected: Expected
    is_fixed: bool
    """Whether nothing in it depends on a connection's values."""
    bases: Mapping[str, Base]
    """All bases by name, where they are fixed."""

    @property
    def sends_client_secret(self) -> bool:
        """Whether calls carry the app's own secret beside the connection's credential."""
        return not self.is_fixed and any("{client_secret}" in text for text in self.api.headers.values())

    def values(self, details: Values) -> dict[str, str]:
        """Return the value of each variable that has one, for a connection with these details."""
        return known_values(self.template, self.app.variables, details)

    def require_base(self, name: str) -> None:
        """Check that there is a base of this name; empty for the main one.

        Raises:
            NoApiAddress: nobody knows where the app's API is.
            InvalidValue: it has no further base of this name.
        """
        if not self.api.base_url:
            raise NoApiAddress
        if name and name not in self.api.further:
            names = ", ".join(self.api.further)
            use = f"use {names}, or leave it out" if names else "leave it out: this app has no further base"
            raise InvalidValue.of(("Evergrant-Base", use))

    def filled(self, values: Values) -> Mapping[str, Base]:
        """Return the bases by name, with values; one that lacks a value is left out."""
        if self.is_fixed:
            return self.bases
        texts = {"": self.api.base_url, **self.api.further}
        safe = {**values, "token": quote(values.get("token", ""), safe=SAFE_IN_PATHS)}
        endpoints = _own_endpoints(self.app, self.template, self.api, safe)
        found = {name: placeholders.fill(text, safe).rstrip("/") for name, text in texts.items()}
        return {name: _base(name, url, endpoints) for name, url in found.items() if not _lacking(texts[name], safe)}

    def base(self, name: str, values: Values) -> Base:
        """Return one base, with values.

        Raises:
            UpstreamRejected: `missing_variable`, the connection lacks a value; the message says which.
        """
        found = self.filled(values).get(name)
        if found is None:
            text = self.api.further[name] if name else self.api.base_url
            missing = ", ".join(_lacking(text, {**values, "token": "x"}))
            raise UpstreamRejected(
                f"The address of {self.app.name}'s API needs a value for {missing}, and this connection has none: "
                "connect again, or set the app's variables.",
                provider_error="missing_variable",
            )
        return found


async def api_of(broker: Broker, project_id: str, app_id: str) -> AppApi:
    """Return an app's API. Costs no query for a few seconds.

    Raises:
        AppNotFound: there is no such app.
    """

    async def read() -> AppApi:
        return _put_together_api(broker, await load_app(broker, project_id, app_id))

    api: AppApi = await broker.apis.get_or_read((project_id, app_id), read)
    return api


def _put_together_api(broker: Broker, app: OutboundApp) -> AppApi:
    template = template_of(broker, app)
    if template is not None and has_moved(template, app, known_values(template, app.variables, {})):
        template = None  # its tokens are another server's, and go to no API but that one's
    known = template.api if template is not None else Api()
    api = known.model_copy(
        update={
            "base_url": app.api_base_url or known.base_url,
            "further": {**({} if app.api_base_url else known.further), **app.api_further},
            "headers": {**known.headers, **app.api_headers},
            "forbidden": (*known.forbidden, *app.api_forbidden),
        }
    )
    texts = {"": api.base_url, **api.further}
    is_fixed = not any(placeholders.names_in(text) for text in (*texts.values(), *api.headers.values()))
    bases = {}
    if is_fixed:
        endpoints = _own_endpoints(app, template, api, known_values(template, app.variables, {}))
        bases = {name: _base(name, text.rstrip("/"), endpoints) for name, text in texts.items() if text}
        is_fixed = not any(placeholders.names_in(path) for base in bases.values() for path in base.own_paths)
    return AppApi(app, template, api, expected_of(api), is_fixed, bases)


def _own_endpoints(app: OutboundApp, template: Template | None, api: Api, values: Values) -> Sequence[str]:
    """Return where tokens are got, traded, looked into and revoked, and where the context of a connection is read.

    A context that is the harmless call of the same entry hands nothing out, and may be the whole API (GraphQL).
    """
    found = [app.token_url, app.revocation_url, app.dcr_url]
    if template is not None:
        found += [
            template.token_endpoint,
            template.refresh_endpoint,
            template.revocation_endpoint,
            template.introspection_endpoint,
            *(each.url for each in template.token_exchange),
            *(each.url for each in template.login),
            template.revocation.url if template.revocation is not None else "",
        ]
        context = template.context_request.url if template.context_request is not None else ""
        check = api.check.partition(" ")[2].partition("?")[0]
        if context.partition("?")[0] not in (check, f"{template.api.base_url}{check}"):
            found.append(context)
    return [placeholders.fill(url, values) for url in dict.fromkeys(found) if url]


def _base(name: str, url: str, endpoints: Iterable[str]) -> Base:
    here, own = urlsplit(url), set()
    for endpoint in endpoints:
        there = urlsplit(endpoint)
        if there.hostname == here.hostname and f"{_plainly(there.path)}/".startswith(f"{_plainly(here.path)}/"):
            own.add(_plainly(_plainly(there.path).removeprefix(_plainly(here.path))))
    return Base(name, url, frozenset(own))


def _plainly(path: str) -> str:
    """Write a path as a careless server may read it: in small letters, without doubled slashes and parameters."""
    segments = (segment.partition(";")[0] for segment in _SLASHES.sub("/", path).lower().split("/"))
    return "/".join(segments).rstrip("/")


def _lacking(text: str, values: Values) -> list[str]:
    return [name for name in placeholders.names_in(text) if not values.get(name)]
