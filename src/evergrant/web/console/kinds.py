"""The kinds of apps in words that people know, and what pages say of each."""

from collections.abc import Mapping
from dataclasses import dataclass

from evergrant.app_types import AppType
from evergrant.broker.apps.variables import declared_variables
from evergrant.catalog.kinds import texts_in
from evergrant.catalog.template import Template
from evergrant.catalog.variable import Variable
from evergrant.db import OutboundApp
from evergrant.placeholders import names_in


@dataclass(frozen=True, slots=True)
class Kind:
    """How pages speak of one kind of apps."""

    type: AppType
    name: str
    icon: str
    about: str
    """What an app of this kind is, behind its name's heading."""

    @property
    def is_consented(self) -> bool:
        """Whether somebody connects it in the browser."""
        return self.type.is_consented

    @property
    def is_obtained(self) -> bool:
        """Whether evergrant obtains tokens by itself from what is stored."""
        return self.type.is_obtained

    @property
    def is_key(self) -> bool:
        """Whether it hands out what was uploaded."""
        return self.type == AppType.API_KEY

    @property
    def what(self) -> str:
        """What whoever adds a connection gives."""
        return "a key" if self.is_key else "credentials"


KINDS: Mapping[AppType, Kind] = {
    one.type: one
    for one in (
        Kind(AppType.OAUTH, "OAuth", "link-2", "A client of yours at {provider}, for your users to connect."),
        Kind(AppType.API_KEY, "API key", "key-round", "Your users' keys are stored here, one for each."),
        Kind(
            AppType.CLIENT_CREDENTIALS,
            "Client credentials",
            "lock-keyhole",
            "evergrant gets tokens for a client itself, and renews them. Nobody consents.",
        ),
        Kind(
            AppType.JWT_BEARER,
            "Service account",
            "bot",
            "evergrant signs with a private key, and {provider} answers with tokens. Nobody consents.",
        ),
        Kind(
            AppType.INSTALLATION,
            "App installation",
            "blocks",
            "Your users install your app at {provider}; its key then gets tokens for each installation.",
        ),
        Kind(
            AppType.SIGNED_JWT,
            "Signed token",
            "fingerprint",
            "evergrant signs the tokens itself, with a key from {provider}. Nobody consents.",
        ),
        Kind(
            AppType.LOGIN,
            "Login",
            "user",
            "evergrant signs in at {provider} with what is stored, and keeps the session fresh.",
        ),
    )
}


def kind_of(app: OutboundApp) -> Kind:
    """Return how pages speak of an app."""
    return KINDS[AppType(app.app_type)]


@dataclass(frozen=True, slots=True)
class Registration:
    """What an app must be given of what its provider has registered; the rest comes with its connections."""

    callback: bool
    """Whether the provider has to know where the browser comes back."""
    client_id: bool
    client_secret: bool
    signing_key: bool
    scopes: bool

    @property
    def is_anything(self) -> bool:
        """Whether there is anything to be given."""
        return self.client_id or self.client_secret or self.signing_key


def registration_of(kind: Kind, template: Template | None) -> Registration:
    """Return what an app of this kind, and of this template where there is one, is given."""
    if kind.is_key:
        return Registration(callback=False, client_id=False, client_secret=False, signing_key=False, scopes=False)
    if template is None:
        return Registration(
            callback=kind.is_consented, client_id=True, client_secret=True, signing_key=False, scopes=True
        )
    used = {name for text in texts_in(template.model_dump()) for name in names_in(text)}
    own = template.fields.keys()
    has_client = kind.type in (AppType.OAUTH, AppType.INSTALLATION, AppType.CLIENT_CREDENTIALS)
    return Registration(
        callback=kind.is_consented,
        client_id=(has_client or "client_id" in used) and "client_id" not in own,
        client_secret=(has_client or "client_secret" in used) and "client_secret" not in own,
        signing_key="signing_key" in used,
        scopes=has_client or "scope" in used or bool(template.scopes),
    )


def variables_brought(app: OutboundApp, template: Template | None) -> dict[str, Variable]:
    """Return the variables whose values come with each connection of an app that nobody connects in the browser."""
    found = declared_variables(template, "user", "callback")
    return {name: variable for name, variable in found.items() if not app.variables.get(name)}
