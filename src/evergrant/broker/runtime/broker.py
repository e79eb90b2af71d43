"""The composition root: `open_broker` puts together what the faces, the refresher and the tests work with."""

import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy.engine import URL

from evergrant import pace
from evergrant.broker.runtime.admission import KnownPolicy
from evergrant.broker.runtime.database_health import DatabaseHealth
from evergrant.broker.runtime.endpoint_gauges import EndpointGauges
from evergrant.broker.runtime.endpoints import Endpoints
from evergrant.broker.runtime.expiring import Expiring
from evergrant.broker.runtime.heartbeat import Heartbeat
from evergrant.broker.runtime.holder import LeaseHolder
from evergrant.broker.runtime.holder_files import HOLDERS_FOLDER
from evergrant.broker.runtime.hot_set import HotSet
from evergrant.broker.runtime.in_flight import InFlight
from evergrant.broker.runtime.journal import Journal
from evergrant.broker.runtime.landings import Landings
from evergrant.broker.runtime.limits import Limits
from evergrant.broker.runtime.principal import Principal
from evergrant.broker.runtime.refusals import Refusals
from evergrant.broker.runtime.shared_look import SharedLook
from evergrant.broker.runtime.single_flight import SingleFlight
from evergrant.broker.runtime.timelines import Timelines
from evergrant.broker.runtime.traits import traits_of
from evergrant.broker.runtime.unwritten_activity import UnwrittenActivity
from evergrant.broker.runtime.unwritten_calls import UnwrittenCalls
from evergrant.broker.runtime.unwritten_uses import UnwrittenUses
from evergrant.broker.runtime.vault import Vault
from evergrant.catalog.catalogue import Catalogue
from evergrant.catalog.loader import load_catalogue
from evergrant.crypto.keyring import Keyring
from evergrant.crypto.kms.local import new_master_key
from evergrant.crypto.kms.sources import read_master_keys
from evergrant.crypto.kms.transit import TransitAccess
from evergrant.db import Grant
from evergrant.db.engine import Database, database_url
from evergrant.db.grant_reader import GrantReader, GrantView, OwnerKey, open_grant_reader
from evergrant.db.read_replica import SETTING as READ_SETTING
from evergrant.errors import ConfigurationError
from evergrant.metrics import Metrics
from evergrant.oauth2.egress import OwnPlace
from evergrant.oauth2.open_files import connections_at_once
from evergrant.oauth2.transport import Http, default_tls, open_http
from evergrant.oauth2.way_out import WayOut
from evergrant.pace import Pace
from evergrant.settings import Settings

log = logging.getLogger(__name__)

DRAIN_SECONDS = 40
"""How long a stop waits for refreshes in flight: longer than the longest provider call and its write."""
LAND_SECONDS, AWAY_SECONDS = 10.0, 1.0
"""How long a stop waits for the database to take an answer that is in the journal: normally, and in an outage."""
REMEMBER_SECONDS = 4.0
"""How long keys, policies and redirect origins are remembered: a change is effective everywhere within 5 seconds."""
SESSION_SECONDS = 1.0
"""How long an agent session is remembered: one that is revoked is over everywhere within 2 seconds."""
REGISTRATION_CHECK_SECONDS = 60.0
"""How long a server is not asked again whether it knows our registration."""
REFUSED_TOKEN_SECONDS = 60.0
"""An API that refuses a token has it refreshed at most once in so many seconds."""
TO_DO_SECONDS = 8.0
"""How old the red numbers in the console's navigation may be."""
DESK_SECONDS = 900.0
"""How long a browser that was signed in is still told in its own frame that the database is away."""
PROVIDER_SECONDS = 600.0
"""How long the metadata of an identity provider is remembered where operators, or users, sign in."""
MAX_REMEMBERED = 10_000
"""How many of each are remembered at most."""
ASIDE_AT_ONCE = 64
"""How many calls to webhooks this process makes at once at most, and how many revocations."""
PRACTICE_PATH = "/practice"
"""Where a trial on loopback has the practice provider."""
MASTER_KEY_FILE = "master-key"
JOURNAL_FOLDER = "journal"


def _memory() -> Expiring[Any, Any]:
    return Expiring(seconds=REMEMBER_SECONDS, most=MAX_REMEMBERED)


@dataclass(frozen=True)
class Broker:
    """Everything a use case needs. Made by `open_broker` and passed as the first argument."""

    settings: Settings
    database: Database
    vault: Vault
    http: Http
    """The way out to providers."""
    webhook_http: Http
    """The same for webhooks, with connections of its own, so that receivers that hang take none from providers."""
    revocation_http: Http
    """The same for revocations, which nobody waits for."""
    way_out: WayOut
    """The way out to the APIs of providers, which streams."""
    grant_reader: GrantReader
    journal: Journal
    catalogue: Catalogue
    """The templates by id."""
    limits: Limits
    calls_in_flight: InFlight
    ready_connections: HotSet[Any, Any]
    """What calls are made with, opened, by project, connection that is wanted and base."""
    hot_rows: HotSet[tuple[OwnerKey, str], GrantView]
    """The rows that answered fetches, sealed, by owner and scopes; those of the latest consent without."""
    pace: Pace
    holder: LeaseHolder
    """This process, as a holder of leases."""
    metrics: Metrics = field(default_factory=Metrics)
    database_health: DatabaseHealth = field(default_factory=DatabaseHealth)
    landings: Landings = field(default_factory=Landings)
    endpoints: Endpoints = field(default_factory=Endpoints)
    revocation_endpoints: Endpoints = field(default_factory=Endpoints)
    """Where tokens are revoked: over connections of their own, so with shares and breakers of their own."""
    refreshes: SingleFlight[tuple[str, str], Grant] = field(default_factory=SingleFlight)
    """Refreshes in flight in this process, by (project, grant)."""
    lease_looks: SharedLook[tuple[str, str], Any] = field(default_factory=SharedLook)
    """What waits in this process for leases of others, by (project, grant)."""
    registrations: SingleFlight[tuple[str, str], None] = field(default_factory=SingleFlight)
    """Dynamic registrations in flight in this process, by (project, app)."""
    registration_checks: Expiring[tuple[str, str], bool] = field(
        default_factory=lambda: Expiring(seconds=REGISTRATION_CHECK_SECONDS, most=MAX_REMEMBERED)
    )
    """The apps, by (project, app), whose server was asked lately whether it still knows us."""
    trips: SingleFlight[tuple[str, str, bytes], str] = field(default_factory=SingleFlight)
    """Connect trips that end in this process, by (project, request, digest of the browser)."""
    verifications: SingleFlight[str, Any] = field(default_factory=SingleFlight)
    """Walks along audit logs in this process, by project."""
    principals: Expiring[tuple[str, bytes], Principal] = field(default_factory=_memory)
    """Authenticated keys and users, by (project, digest of the credential)."""
    operator_provider: Expiring[str, Any] = field(default_factory=lambda: Expiring(seconds=PROVIDER_SECONDS, most=1))
    """The metadata of the operators' identity provider, by its issuer."""
    agent_sessions: Expiring[tuple[str, str, bytes], Principal] = field(
        default_factory=lambda: Expiring(seconds=SESSION_SECONDS, most=MAX_REMEMBERED)
    )
    """Who bears agent sessions that are good, by (project, session, digest of the key that was presented)."""
    user_providers: Expiring[str, Any] = field(
        default_factory=lambda: Expiring(seconds=PROVIDER_SECONDS, most=MAX_REMEMBERED)
    )
    """The metadata of trusted issuers where users sign in, by issuer."""
    console_sessions: Expiring[bytes, Any] = field(default_factory=_memory)
    """Operators who are signed in, by digest of the cookie."""
    policies: Expiring[str, Mapping[tuple[str, str], Sequence[KnownPolicy]]] = field(default_factory=_memory)
    """Access policies by project, then by (app, action)."""
    apis: Expiring[tuple[str, str], Any] = field(default_factory=_memory)
    """Where apps' APIs are, by (project, app)."""
    refused_tokens: Expiring[tuple[str, str], bool] = field(
        default_factory=lambda: Expiring(seconds=REFUSED_TOKEN_SECONDS, most=MAX_REMEMBERED)
    )
    """Grants, by (project, grant), whose token an API has refused lately, so that it was refreshed."""
    redirect_origins: Expiring[None, Mapping[str, frozenset[str]]] = field(default_factory=_memory)
    """The redirect origins of all projects, by project."""
    brands: Expiring[str, Any] = field(default_factory=_memory)
    """How the pages of projects look to their users, by project."""
    uses: UnwrittenUses = field(default_factory=UnwrittenUses)
    timelines: Timelines = field(default_factory=Timelines)
    activity: UnwrittenActivity = field(default_factory=UnwrittenActivity)
    calls: UnwrittenCalls = field(default_factory=UnwrittenCalls)
    to_do: Expiring[tuple[str, frozenset[str]], Mapping[str, int]] = field(
        default_factory=lambda: Expiring(seconds=TO_DO_SECONDS, most=MAX_REMEMBERED)
    )
    """How much waits for somebody to act, by (project, the only apps that may be seen)."""
    desks: Expiring[tuple[bytes, str], Any] = field(
        default_factory=lambda: Expiring(seconds=DESK_SECONDS, most=MAX_REMEMBERED)
    )
    """Who was at the console lately, by (digest of the cookie, project): pages say that the database is away."""
    refusals: Refusals = field(default_factory=Refusals)

    def forget_credentials(self) -> None:
        """Look every credential up again: a key, an issuer or a session has changed, or what depends on one."""
        self.principals.clear()
        self.agent_sessions.clear()

    def stop_waiting(self) -> None:
        """Give answers that the journal has but a short time to land, from now on: this process is about to stop."""
        self.landings.let_go(within=LAND_SECONDS if self.database_health.is_up else AWAY_SECONDS)


@asynccontextmanager
async def open_broker(settings: Settings) -> AsyncIterator[Broker]:
    """Open the store and the network; on the way out, let refreshes in flight land first.

    Raises:
        ConfigurationError: a setting is wrong.
        MigrationsPending, SchemaTooNew: this version cannot run on the schema.
        Unavailable: the database is away.
    """
    keyring = load_keyring(settings)
    catalogue = load_catalogue(settings.catalog_dir)
    database = open_database(settings)
    try:
        await database.require_current_schema()
        reader = open_grant_reader(database.engine.url, database.servers)
        holder = LeaseHolder(settings.data_dir / HOLDERS_FOLDER, pace.PACE)
        tls = default_tls()
        reachable = (*settings.egress_allow, *own_places(settings))
        async with (
            open_http(reachable, tls=tls, most=connections_at_once()) as http,
            open_http(settings.egress_allow, tls=tls, most=ASIDE_AT_ONCE) as webhook_http,
            open_http(reachable, tls=tls, most=ASIDE_AT_ONCE) as revocation_http,
            aclosing(WayOut(reachable, tls)) as way_out,
        ):
            broker = Broker(
                settings=settings,
                database=database,
                vault=Vault(keyring, database),
                http=http,
                webhook_http=webhook_http,
                revocation_http=revocation_http,
                way_out=way_out,
                grant_reader=reader,
                journal=Journal(settings.data_dir / JOURNAL_FOLDER),
                catalogue=catalogue,
                endpoints=Endpoints(http.most),
                revocation_endpoints=Endpoints(revocation_http.most),
                calls_in_flight=InFlight(
                    most=settings.calls_at_once, most_of_an_owner=settings.calls_at_once_per_owner
                ),
                ready_connections=HotSet(database),
                hot_rows=HotSet(database, is_on=settings.hot_set),
                pace=pace.PACE,
                holder=holder,
                limits=Limits(
                    per_key=settings.rate_limit_per_key,
                    per_user=settings.rate_limit_per_user,
                    per_owner=settings.rate_limit_per_owner,
                    connects_per_user=settings.connects_per_user,
                    per_address=settings.rate_limit_per_address,
                ),
            )
            broker.metrics.registry.register(EndpointGauges(broker.endpoints))
            heartbeat = Heartbeat(holder, broker.database_health, broker.pace, database, own_traits(settings, keyring))
            await heartbeat.start()
            try:
                yield broker
            finally:
                broker.stop_waiting()
                await broker.refreshes.drain(DRAIN_SECONDS)
                await broker.registrations.drain(DRAIN_SECONDS)
                await broker.trips.drain(DRAIN_SECONDS)
                await heartbeat.stop()
                await reader.aclose()
    finally:
        await database.dispose()


def own_traits(settings: Settings, keyring: Keyring) -> str:
    """Return what this process must have in common with the others, as `traits_of` has it."""
    return traits_of(
        public_url=settings.public_url,
        egress_allow=settings.egress_allow,
        master_keys=[key.id for key in keyring.keys],
        catalog_dir=settings.catalog_dir,
    )


def own_places(settings: Settings) -> tuple[OwnPlace, ...]:
    """Return where a trial on loopback has its practice provider: a part of the same server, and nothing beside it."""
    if not settings.is_loopback_trial:
        return ()
    here = urlsplit(settings.public_url)
    return (OwnPlace(here.hostname or "", here.port or 80, f"{PRACTICE_PATH}/"),)


def own_database_url(settings: Settings) -> URL:
    """Return where the database is, as its driver wants it."""
    configured = settings.database_url.get_secret_value() if settings.database_url else None
    return database_url(configured, settings.data_dir)


def open_database(settings: Settings) -> Database:
    """Make the database alone, for migrations and checks. The caller disposes of it."""
    read_url = None
    if settings.database_read_url is not None:
        read_url = database_url(settings.database_read_url.get_secret_value(), settings.data_dir, READ_SETTING)
    return Database.at(own_database_url(settings), settings.database_pooler, read_url=read_url)


def load_keyring(settings: Settings) -> Keyring:
    """Return the operator's master keys. No key service is asked.

    With SQLite and none configured, the key file in the data directory is used; `create_master_key_file` makes it.

    Raises:
        ConfigurationError: no key is configured, or one is malformed.
    """
    if settings.master_keys is not None:
        access = TransitAccess(settings.vault_token, settings.vault_token_file, settings.vault_namespace)
        return Keyring(read_master_keys(settings.master_keys.get_secret_value(), access))
    path = settings.data_dir / MASTER_KEY_FILE
    if settings.uses_sqlite and path.exists():
        return Keyring(read_master_keys(path.read_text(encoding="ascii")))
    raise ConfigurationError(
        "EVERGRANT_MASTER_KEYS is not set: make a key with 'evergrant keyring new' and keep it apart from the database"
    )


def create_master_key_file(settings: Settings) -> Path | None:
    """Generate a master key into the data directory, if there is none yet and SQLite needs one.

    Returns:
        The new file (mode 0600), or None where nothing had to be made.
    """
    path = settings.data_dir / MASTER_KEY_FILE
    if settings.master_keys is not None or not settings.uses_sqlite or path.exists():
        return None
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{MASTER_KEY_FILE}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(new_master_key() + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        # A link fails where the name is taken: of two processes that start together, both use the first one's key.
        os.link(draft, path)
    except FileExistsError:
        return None
    finally:
        draft.unlink()
    return path
