"""The catalogue's files: all of them are good, and one that is not says where."""

from pathlib import Path

import pytest

from evergrant.catalog.loader import dcr_presets, load, templates
from evergrant.catalog.template import Template
from evergrant.errors import ConfigurationError

GOOD = """
name = "Example"
category = "examples"
documentation_url = "https://example.com/docs"
verification = "made up"
authorization_url = "https://example.com/authorize"
token_url = "https://example.com/token"
"""


def test_every_file_of_the_catalogue_is_good() -> None:
    assert len(templates()) >= 10
    assert list(templates()) == sorted(templates())
    assert all(template.id == key for key, template in templates().items())


def test_every_preset_is_good() -> None:
    assert list(dcr_presets()) == sorted(dcr_presets())
    assert len(dcr_presets()) >= 3
    assert all(preset.id == key for key, preset in dcr_presets().items())


def test_a_files_name_is_its_id(tmp_path: Path) -> None:
    file = tmp_path / "example.toml"
    file.write_text(GOOD)
    assert load(file, Template).id == "example"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + 'tokenn_url = "https://example.com"\n', "tokenn_url"),
        (GOOD.replace("https://example.com/token", "http://example.com/token"), "token_url"),
        (GOOD.replace("https://example.com/token", "https://{host}/token"), "token_url"),
        (GOOD + 'default_scopes = ["read"]\n', "describe in scopes: read"),
        (GOOD + 'app_type = "apikey"\n', "an apikey template has no endpoints"),
        (GOOD.replace('token_url = "https://example.com/token"', ""), "needs authorization_url and token_url"),
        ("name = ", "example.toml"),
    ],
)
def test_a_file_that_is_not_good_says_where(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "example.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=r"example\.toml") as error:
        load(file, Template)
    assert said in error.value.message
