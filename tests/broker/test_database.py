"""What each connection to SQLite is told: nothing of it shows until the power fails, or a row is left behind."""

from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import text

from evergrant.broker.runtime.broker import open_broker
from evergrant.crypto.keyring import new_master_key
from evergrant.settings import Settings


async def test_sqlite_writes_through_to_the_disk_and_keeps_references_whole(sqlite_url: str, data_dir: Path) -> None:
    settings = Settings(data_dir=data_dir, database_url=SecretStr(sqlite_url), master_keys=SecretStr(new_master_key()))
    async with open_broker(settings) as broker, broker.database.write() as session:
        names = ("journal_mode", "synchronous", "foreign_keys")
        said = {name: (await session.execute(text(f"PRAGMA {name}"))).scalar_one() for name in names}
    assert said == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}  # 2 is FULL
