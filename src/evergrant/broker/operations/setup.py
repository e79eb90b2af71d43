"""From nothing to a working installation: schema, master key, first project and key."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy.exc import IntegrityError

from evergrant import clock
from evergrant.broker.access.management_keys import check_key_text, create_key
from evergrant.broker.audit.record import record
from evergrant.broker.projects.projects import create_project, new_project_id
from evergrant.broker.refresh.left_behind import give_back_at_start
from evergrant.broker.refresh.replay import replay_at_start
from evergrant.broker.runtime.broker import Broker, create_master_key_file, open_broker, open_database
from evergrant.crypto.opaque import digest, equal
from evergrant.db import ManagementKey, Project
from evergrant.db.schema import upgrade_database
from evergrant.settings import Settings

log = logging.getLogger(__name__)

BOOTSTRAP_KEY_ID = "bootstrap"
FIRST_PROJECT = "My project"


@dataclass(frozen=True, slots=True)
class InitResult:
    """A new project and its management key, which is shown here and never again."""

    project_id: str
    management_key: str
    public_url: str


async def upgrade(settings: Settings) -> None:
    """Bring the database's schema to this version."""
    database = open_database(settings)
    if database.is_sqlite:
        _make_private_file(Path(database.engine.url.database or ""))
    try:
        await upgrade_database(database.patient)
    finally:
        await database.dispose()


def _make_private_file(path: Path) -> None:
    """Make the SQLite file for its owner alone; SQLite gives its journal the same mode."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)


async def prepare_database(settings: Settings, *, migrate: bool = False) -> None:
    """Prepare the database before serving: SQLite migrates by itself, PostgreSQL when told; then the bootstrap project.

    Raises:
        ConfigurationError, MigrationsPending: as `open_broker`.
    """
    if settings.uses_sqlite or migrate:
        await upgrade(settings)
    made = create_master_key_file(settings)
    if made is not None:
        log.warning("generated a master key; back it up apart from the database", extra={"file": str(made)})
    # Always, so that what is wrong is said here in one line, and not by a server's failed start.
    async with open_broker(settings) as broker:
        await replay_at_start(broker)
        await give_back_at_start(broker)
        await _bootstrap(broker)


async def initialise(
    settings: Settings, *, project_name: str = "default", redirect_origins: Sequence[str] = ()
) -> InitResult:
    """Make a project and a management key that may do everything; the schema too, on SQLite.

    Raises:
        InvalidValue: a redirect origin cannot be used.
        ConfigurationError, MigrationsPending: as `open_broker`.
    """
    await prepare_database(settings)
    now = clock.now()
    project_id = new_project_id()
    async with open_broker(settings) as broker, broker.database.write() as session:
        await create_project(
            broker,
            session,
            project_id=project_id,
            name=project_name,
            redirect_origins=redirect_origins,
            now=now,
        )
        key = await create_key(session, project_id, name="admin", now=now)
    return InitResult(project_id, key.text, settings.public_url)


def is_first_run(settings: Settings) -> bool:
    """Tell whether this is a trial on somebody's own machine, and nothing is there yet.

    Only SQLite in an empty data folder, reached by a browser on the same machine: anywhere else a start makes nothing
    that was not asked for.
    """
    if not settings.is_loopback_trial or settings.database_url is not None or settings.bootstrap_project_id is not None:
        return False
    return not settings.data_dir.exists() or next(settings.data_dir.iterdir(), None) is None


async def make_first_project(broker: Broker) -> None:
    """Make the project of a first run. It has no key yet: nobody would have seen its text."""
    async with broker.database.write() as session:
        await create_project(
            broker,
            session,
            project_id=new_project_id(),
            name=FIRST_PROJECT,
            redirect_origins=(),
            now=clock.now(),
        )


async def _bootstrap(broker: Broker) -> None:
    """Create the bootstrap project and key, or give an existing one the key that is configured now."""
    settings = broker.settings
    project_id, key = settings.bootstrap_project_id, settings.bootstrap_management_key
    if project_id is None or key is None:
        return
    now = clock.now()
    async with broker.database.read() as session:
        project = await session.get(Project, project_id)
    if project is not None and project.closed_at is not None:
        # Whoever may delete one project must not keep the others from being served.
        log.error(
            "the bootstrap project was deleted, and is not made again: take EVERGRANT_BOOTSTRAP_PROJECT_ID away, or "
            "choose another id",
            extra={"project": project_id},
        )
        return
    if project is not None:
        await _follow_bootstrap_key(broker, project_id, key)
        return
    try:
        async with broker.database.write() as session:
            await create_project(
                broker,
                session,
                project_id=project_id,
                name=project_id,
                redirect_origins=settings.bootstrap_redirect_origins,
                now=now,
            )
            await create_key(
                session,
                project_id,
                name="bootstrap",
                key_id=BOOTSTRAP_KEY_ID,
                text=key.get_secret_value(),
                now=now,
            )
    except IntegrityError:
        log.info("another replica made the bootstrap project")
    else:
        log.info("made the bootstrap project", extra={"project": project_id})


async def _follow_bootstrap_key(broker: Broker, project_id: str, key: SecretStr) -> None:
    """Let the operator rotate the bootstrap key by changing the setting. A disabled one stays disabled."""
    new = digest(key.get_secret_value())
    async with broker.database.write() as session:
        row = await session.get(ManagementKey, (project_id, BOOTSTRAP_KEY_ID))
        if row is not None and not equal(row.digest, new):
            check_key_text(key.get_secret_value())
            row.digest = new
            await record(session, project_id, "key.updated", data={"keyId": row.id, "fields": ["managementKey"]})
            log.warning("the bootstrap management key was replaced", extra={"project": project_id})
