"""What is in the database, byte for byte, whatever the application says about it."""

import asyncio
from pathlib import Path
from typing import Any

from evergrant.db import Base
from evergrant.db.engine import database_url, make_engine
from evergrant.settings import Settings

NOTED_LATER = {("management_keys", "last_used_at")}
"""Written about once a minute, not by the call that causes it."""

NOTED_ANY_TIME = "key.used_from_new_address"
"""The audit record of the same minute's notes."""

Dump = dict[str, list[dict[str, Any]]]


def dump(settings: Settings) -> Dump:
    """Return every column of every row of every table, as the driver gives them."""

    async def read() -> Dump:
        url = settings.database_url.get_secret_value() if settings.database_url else None
        engine = make_engine(database_url(url, Path(settings.data_dir)))
        try:
            async with engine.connect() as connection:
                tables: Dump = {}
                for table in Base.metadata.sorted_tables:
                    rows = (await connection.exec_driver_sql(f'SELECT * FROM "{table.name}"')).mappings()
                    tables[table.name] = sorted(
                        (
                            {k: v for k, v in row.items() if (table.name, k) not in NOTED_LATER}
                            for row in rows
                            if row.get("action") != NOTED_ANY_TIME
                        ),
                        key=repr,
                    )
                return tables
        finally:
            await engine.dispose()

    return asyncio.run(read())


def execute(settings: Settings, sql: str) -> None:
    """Change rows behind the application's back."""

    async def run() -> None:
        url = settings.database_url.get_secret_value() if settings.database_url else None
        engine = make_engine(database_url(url, Path(settings.data_dir)))
        try:
            async with engine.begin() as connection:
                await connection.exec_driver_sql(sql)
        finally:
            await engine.dispose()

    asyncio.run(run())
