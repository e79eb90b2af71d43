"""Two PostgreSQL servers, of which one follows the other and can take its place."""

from types import TracebackType
from typing import Self

from tests.infra.postgres import REPLICATES, PostgresServer
from tests.infra.waiting import wait_until

CONFIGURATION = REPLICATES + "synchronous_commit = on\n"


class PostgresPair:
    """A primary with the database `name`, and a standby that has whatever was committed there."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.primary = PostgresServer(more=CONFIGURATION)
        self.standby: PostgresServer

    def __enter__(self) -> Self:
        try:
            self.primary.start()
            self.primary.create_database(self.name)
            self.standby = PostgresServer(more=CONFIGURATION, standby_of=self.primary)
            self.standby.start()
            # What is committed is on the standby too. Not before it is there, which would wait for ever.
            self.primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            self.primary.execute("SELECT pg_reload_conf()")
            following = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
            wait_until(lambda: self.primary.execute(following) == "1", "the standby follows")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for server in (getattr(self, "standby", None), self.primary):
            if server is not None:
                server.remove()

    @property
    def url(self) -> str:
        """The URL that names both, the first primary first."""
        hosts = f"host={self.primary.folder},{self.standby.folder}"
        return f"postgresql://postgres@/{self.name}?{hosts}&target_session_attrs=read-write"
