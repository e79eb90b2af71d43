"""Settings: the only reader of evergrant's own variables.

Every setting is an environment variable `EVERGRANT_<NAME>`; secrets may also be given as `EVERGRANT_<NAME>_FILE`,
the path of a file that holds the value, as container platforms mount them.
"""

import os
import re
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from evergrant.errors import ConfigurationError
from evergrant.networks import Network, is_loopback_host, parse_networks
from evergrant.operator_rules import check_allowed, check_roles

PREFIX = "EVERGRANT_"
_WORKERS_FOLDER = "_EVERGRANT_WORKERS_FOLDER"  # from us to ourselves, and no setting
WIDEST_OF_PROXIES = 7
"""How many bits a network of proxies fixes at least: the widest private one, fc00::/7, has so many."""
OTHERS = frozenset(f"{PREFIX}{name}" for name in ("URL", "PROJECT_ID", "MANAGEMENT_KEY", "WEBHOOK_SECRET"))
"""What the helpers for agents and the examples read, perhaps on the same machine."""
SECRETS = (
    "database_url",
    "database_read_url",
    "master_keys",
    "bootstrap_management_key",
    "metrics_token",
    "console_oidc_client_secret",
)


class Settings(BaseSettings):
    """What an operator can set. Nothing here changes while a process runs."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    data_dir: Path = Field(
        default=Path("evergrant-data"),
        description="Folder for what one machine keeps: the SQLite database and a generated master key.",
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="postgresql://user:password@host/database. Without it, SQLite in the data folder.",
    )
    database_read_url: SecretStr | None = Field(
        default=None,
        description="The same for a standby that answers lists, exports and counts. Without it, the database does.",
    )
    database_pooler: Literal["auto", "none", "transaction"] = Field(
        default="auto",
        description="Whether a pooler that lends connections for a transaction is before PostgreSQL. auto finds out.",
    )
    master_keys: SecretStr | None = Field(
        default=None,
        description="Base64 keys of 32 bytes, or where others are, separated by commas. The first seals, all open.",
    )
    vault_token: SecretStr | None = Field(
        default=None, description="The token for master keys in OpenBao's or HashiCorp Vault's transit engine."
    )
    vault_token_file: Path | None = Field(
        default=None, description="A file with that token. It is read at each use, so that an agent can renew it."
    )
    vault_namespace: str = Field(default="", description="The namespace of that transit engine, where it has one.")
    public_url: str = Field(
        default="http://127.0.0.1:8420",
        description="Where browsers reach evergrant. https, except on loopback.",
    )
    egress_allow: Annotated[tuple[Network, ...], NoDecode] = Field(
        default=(),
        description="Networks that providers may be in although they are not public, e.g. 127.0.0.0/8 for trials.",
    )
    trusted_proxies: str = Field(
        default="127.0.0.1",
        description="Addresses of reverse proxies whose X-Forwarded-For is believed, separated by commas.",
    )
    refresher: bool = Field(
        default=True,
        description="Whether 'evergrant serve' also refreshes and delivers webhooks in the background.",
    )
    refresh_concurrency: int = Field(
        default=64, ge=1, le=150, description="How many refreshes one background refresher has in flight."
    )
    refresh_concurrency_per_endpoint: int = Field(
        default=16, ge=1, le=100, description="The same for one token endpoint, so that no provider takes all of them."
    )
    takeover_seconds: int = Field(
        default=300,
        ge=10,
        description="How long after the last sign of a process another takes over a refresh that it left unfinished.",
    )
    idle_after_days: int = Field(
        default=30,
        ge=0,
        description="A connection that nobody fetched for so many days is refreshed only to stay alive; 0 for never.",
    )
    hot_set: bool = Field(
        default=True,
        description="Whether a connection that was just read answers fetches again for up to a second, from memory.",
    )
    rate_limit_per_key: int = Field(
        default=3000,
        ge=0,
        description="Requests per second that one management key may make of one process; 0 for no limit.",
    )
    rate_limit_per_user: int = Field(
        default=50,
        ge=0,
        description="Requests per second that one user may make of one process with a JWT; 0 for no limit.",
    )
    rate_limit_per_owner: int = Field(
        default=20,
        ge=0,
        description="Calls of APIs per second and process with one owner's connections; 0 for no limit.",
    )
    calls_at_once: int = Field(
        default=500, ge=0, description="Calls of APIs that one process has in flight; 0 for no limit."
    )
    calls_at_once_per_owner: int = Field(
        default=32, ge=0, description="The same with one owner's connections; 0 for no limit."
    )
    call_most_bytes: int = Field(
        default=100 * 1024 * 1024, ge=65_536, description="How large the body of a call of an API may be, in bytes."
    )
    call_idle_seconds: int = Field(
        default=60, ge=1, description="How long an API may send nothing in the middle of an answer."
    )
    call_total_seconds: int = Field(default=900, ge=1, description="How long one call of an API may take in all.")
    connects_per_user: int = Field(
        default=30,
        ge=0,
        description="Connect trips per minute that one user may begin at one process with a JWT; 0 for no limit.",
    )
    rate_limit_per_address: int = Field(
        default=20,
        ge=0,
        description="Wrong credentials, and wrong links to pages, per second and address and process; 0 for no limit.",
    )
    bootstrap_project_id: str | None = Field(
        default=None, description="A project to create at start if it does not exist."
    )
    bootstrap_management_key: SecretStr | None = Field(
        default=None, description="The management key of the bootstrap project: 32 characters or more."
    )
    bootstrap_redirect_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins that the bootstrap project may send browsers back to, separated by commas.",
    )
    audit_retention_days: int = Field(
        default=400, ge=0, description="Audit records older than this are pruned; the rest still verifies. 0: never."
    )
    call_retention_days: int = Field(
        default=90,
        ge=0,
        description="Calls in the call log older than this are pruned, sealed batch by batch. 0: never.",
    )
    call_log_fetches: bool = Field(
        default=False,
        description="Whether the call log also has each fetch by a management key; those of users and agents it has.",
    )
    delivery_retention_days: int = Field(
        default=30, ge=1, description="Deliveries to webhooks that are over, and older than this, are forgotten."
    )
    catalog_dir: Path | None = Field(
        default=None,
        description="A folder of provider files that add to the app library, or replace entries of it.",
    )
    console: bool = Field(default=True, description="Whether there is a console for operators, at /console.")
    console_networks: Annotated[tuple[Network, ...], NoDecode] = Field(
        default=(), description="The only networks that reach the console; empty for all. Others find nothing there."
    )
    console_key_sign_in: bool = Field(
        default=True, description="Whether operators may sign in at the console with a management key."
    )
    console_oidc_issuer: str = Field(
        default="", description="The identity provider that operators sign in with; its metadata says the rest."
    )
    console_oidc_client_id: str = Field(default="", description="The console's client there.")
    console_oidc_client_secret: SecretStr | None = Field(
        default=None, description="That client's secret; none for a public client."
    )
    console_oidc_scopes: str = Field(default="openid email profile", description="The scopes that are asked for.")
    console_oidc_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Who may sign in: verified addresses, domains as @example.com, or claim=value."
    )
    console_oidc_roles: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="What they may do: claim:value=role, and a role alone for everybody else (viewer)."
    )
    metrics_token: SecretStr | None = Field(
        default=None,
        description="What Prometheus sends to read /metrics. Without it, only this machine itself may.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"

    @field_validator("egress_allow", "console_networks", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        return parse_networks(value) if isinstance(value, str) else value

    @field_validator("bootstrap_redirect_origins", "console_oidc_allow", "console_oidc_roles", mode="before")
    @classmethod
    def _parts(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip())

    @field_validator("trusted_proxies")
    @classmethod
    def _trusted_proxies(cls, value: str) -> str:
        if "*" in value or any(network.prefixlen < WIDEST_OF_PROXIES for network in parse_networks(value)):
            raise ValueError(
                "must not be everybody: each caller could then choose its address. Write the addresses of your own "
                "proxies, or the network that only they are in, like 10.0.3.0/24"
            )
        return value

    @field_validator("public_url")
    @classmethod
    def _public_url(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("must be a URL like https://evergrant.example.com")
        if url.path not in ("", "/") or url.query or url.fragment or url.username:
            raise ValueError("must be an origin only, without path, query or user")
        if url.scheme == "http" and not is_loopback_host(url.hostname):
            raise ValueError("must be https: plain http is for loopback trials only")
        return value.rstrip("/")

    @field_validator("console_oidc_issuer")
    @classmethod
    def _oidc_issuer(cls, value: str) -> str:
        url = urlsplit(value)
        if value and (not url.hostname or url.query or url.fragment or url.scheme not in ("http", "https")):
            raise ValueError("must be the provider's issuer, a URL like https://login.example.com")
        if value and url.scheme == "http" and not is_loopback_host(url.hostname or ""):
            raise ValueError("must be https: plain http is for loopback trials only")
        return value

    @field_validator("console_oidc_scopes")
    @classmethod
    def _oidc_scopes(cls, value: str) -> str:
        if "openid" not in value.split():
            raise ValueError("must have openid among them, which asks for an id_token; separate them by spaces")
        return " ".join(value.split())

    @field_validator("console_oidc_allow")
    @classmethod
    def _oidc_allow(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_allowed(value)
        return value

    @field_validator("console_oidc_roles")
    @classmethod
    def _oidc_roles(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_roles(value)
        return value

    @field_validator(
        "database_read_url", "vault_token", "vault_token_file", "console_oidc_client_secret", mode="before"
    )
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return value or None  # set to nothing, as compose does with what is not in .env

    @field_validator("metrics_token")
    @classmethod
    def _metrics_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value():
            return None  # set to nothing, as compose does with what is not in .env
        if not re.fullmatch(r"[!-~]{16,}", value.get_secret_value()):
            raise ValueError("use 16 or more ASCII characters without spaces: it goes into an HTTP header")
        return value

    @model_validator(mode="after")
    def _bootstrap_is_whole(self) -> "Settings":
        if (self.bootstrap_project_id is None) != (self.bootstrap_management_key is None):
            raise ValueError("EVERGRANT_BOOTSTRAP_PROJECT_ID and _MANAGEMENT_KEY are set together or not at all")
        return self

    @model_validator(mode="after")
    def _read_url_is_a_standbys(self) -> "Settings":
        read = self.database_read_url.get_secret_value() if self.database_read_url else None
        if read is not None and (self.uses_sqlite or read.startswith("sqlite")):
            raise ValueError(
                "EVERGRANT_DATABASE_READ_URL is for a standby of PostgreSQL: SQLite has none, leave it out"
            )
        return self

    @model_validator(mode="after")
    def _oidc_is_whole(self) -> "Settings":
        if bool(self.console_oidc_issuer) != bool(self.console_oidc_client_id):
            raise ValueError("EVERGRANT_CONSOLE_OIDC_ISSUER and _CLIENT_ID are set together or not at all")
        if self.console_oidc_issuer and not self.console_oidc_allow:
            raise ValueError("EVERGRANT_CONSOLE_OIDC_ALLOW is empty: say who may sign in at the console")
        return self

    @property
    def idle_after(self) -> timedelta | None:
        """How long without a fetch makes a connection idle; None for never."""
        return timedelta(days=self.idle_after_days) if self.idle_after_days else None

    @property
    def uses_sqlite(self) -> bool:
        """Whether the store is the embedded default."""
        return self.database_url is None or self.database_url.get_secret_value().startswith("sqlite")

    @property
    def is_loopback_trial(self) -> bool:
        """Whether browsers reach this instance over plain http, which only loopback may."""
        return self.public_url.startswith("http://")


def share_folder_with_workers(folder: Path) -> None:
    """Tell the worker processes that this one starts where their numbers are added up."""
    os.environ[_WORKERS_FOLDER] = str(folder)


def folder_of_workers() -> Path | None:
    """Return the folder where this worker's server adds numbers up; None where it is the only process."""
    folder = os.environ.get(_WORKERS_FOLDER)
    return Path(folder) if folder else None


def unknown_variables() -> dict[str, str]:
    """Return the variables that look like settings and are none, each with the one that may be meant, or nothing.

    Those that evergrant's helpers for agents read are none of these.
    """
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    known |= {f"{PREFIX}{name.upper()}_FILE" for name in SECRETS}
    unknown = (name for name in sorted(os.environ) if name.startswith(PREFIX) and name not in known)
    return {
        name: next(iter(get_close_matches(name, known, n=1, cutoff=0.8)), "") for name in unknown if name not in OTHERS
    }


_OF_TYPES = {"bool_parsing": "write true or false", "int_parsing": "write a whole number, without a unit"}
"""What the validating library says in its own words."""


def load_settings() -> Settings:
    """Read the environment.

    Raises:
        ConfigurationError: a variable is wrong; the message names each one and what it should be.
    """
    from_files: dict[str, object] = {}
    for name in SECRETS:
        path = os.environ.get(f"{PREFIX}{name.upper()}_FILE")
        if path:
            try:
                from_files[name] = Path(path).read_text(encoding="utf-8").strip()
            except OSError as error:
                raise ConfigurationError(f"{PREFIX}{name.upper()}_FILE: cannot read it: {error.strerror}") from None
    try:
        return Settings(**from_files)  # type: ignore[arg-type]  # checked by pydantic, which is the point
    except ValidationError as error:
        problems = [
            # What is about several variables names them itself.
            f"{PREFIX}{str(e['loc'][0]).upper()}: {said}" if e["loc"] else said
            for e in error.errors(include_url=False, include_input=False)
            if (said := _OF_TYPES.get(e["type"]) or e["msg"].removeprefix("Value error, "))
        ]
        raise ConfigurationError("; ".join(problems)) from None
