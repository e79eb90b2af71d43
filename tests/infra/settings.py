"""Settings of an installation on this machine."""

from pathlib import Path
from typing import Any

from evergrant.crypto.kms.local import new_master_key
from evergrant.settings import Settings
from tests.infra.serving import free_port


def settings_on(database_url: str | None, data_dir: Path, **changes: Any) -> Settings:
    """Return settings of a loopback trial on a database, SQLite in `data_dir` without one; `changes` go before all."""
    usual = {
        "data_dir": data_dir,
        "database_url": database_url,
        "master_keys": new_master_key(),
        "public_url": f"http://127.0.0.1:{free_port()}",
        "egress_allow": "127.0.0.0/8",
        "rate_limit_per_address": 0,  # all of a test's callers and browsers have one address
        "hot_set": False,  # tests change rows behind the server's back, as another process would, and fetch at once
    }
    return Settings(**(usual | changes))
