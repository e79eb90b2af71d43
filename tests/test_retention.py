"""docs/retention.md has everything that grows, and names what keeps it bounded as it is in the code."""

import re
from pathlib import Path

from evergrant import chores
from evergrant.broker.runtime.broker import JOURNAL_FOLDER, MASTER_KEY_FILE
from evergrant.broker.runtime.holder_files import HOLDERS_FOLDER
from evergrant.db import Base
from evergrant.settings import PREFIX, Settings

PAGE = Path(__file__).parents[1] / "docs/retention.md"


def rows(heading: str) -> dict[str, str]:
    """Return the table below a heading: the last cell by what stands in the first."""
    section = PAGE.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `([^`]+)` \|.*\| ([^|]+) \|$", section, re.MULTILINE))


def test_the_page_has_every_table_and_names_chores_and_settings_that_exist() -> None:
    tables = rows("Tables")
    assert sorted(tables) == sorted(Base.metadata.tables)
    names = {chore.name for chore in (*chores.OF_A_PROCESS, *chores.OF_A_REFRESHER, *chores.OF_A_SERVER)}
    for table, words in tables.items():
        code = set(re.findall(r"`([^`]+)`", words))
        settings = {name for name in code if name.startswith(PREFIX)}
        assert {name.removeprefix(PREFIX).lower() for name in settings} <= set(Settings.model_fields), table
        assert code - settings <= names, table
        assert "Chore" not in words or code - settings, table


def test_every_chore_and_setting_that_takes_something_away_is_on_the_page() -> None:
    text = PAGE.read_text()
    taking = [chore.name for chore in chores.OF_A_REFRESHER if re.match("clear|prune|forget|end tests", chore.name)]
    taking += [f"{PREFIX}{name.upper()}" for name in Settings.model_fields if name.endswith("retention_days")]
    assert [name for name in taking if f"`{name}`" not in text] == []


def test_the_page_has_each_part_of_the_data_folder() -> None:
    assert set(rows("The data folder")) == {"evergrant.db", MASTER_KEY_FILE, JOURNAL_FOLDER, HOLDERS_FOLDER}
