"""An entry's `[api]`: what could send a credential astray, or make a check that tells nothing, is refused."""

from pathlib import Path

import pytest

from evergrant.catalog.loader import load_catalogue
from evergrant.errors import ConfigurationError

ENTRY = """
name = "Example"
category = "other"
documentation_url = "https://docs.example.com/keys"
verification = "unconfirmed"
authorization_endpoint = "https://example.com/authorize"
token_endpoint = "https://auth.example.com/token"
"""
KEY = """
name = "Example"
category = "other"
documentation_url = "https://example.com/docs"
verification = "unconfirmed"
app_type = "apikey"
[fields.user]
title = "User"
[fields.password]
title = "Password"
"""
GOOD = """
[api]
base_url = "https://api.example.com/v1"
sources = 2
verification = "confirmed"
further = { files = "https://files.example.net" }
headers = { X-Version = "2", Client-Id = "{client_id}" }
check = "POST /graphql"
check_body = '{"query": "{ me { id } }"}'
check_ok = "/data/me"
safe = ["POST /search/*"]
forbidden = ["* /tokens/**"]
expired = [{ status = 200, pointer = "/error", values = ["ended"] }]
rate = { after = ["X-Wait"], at = ["X-Reset"], remaining = ["X-Left"] }
"""
HOST = """
[variables.shop]
title = "Shop"
source = "user"
pattern = "[a-z0-9-]+"
example = "mine"
"""


def load(folder: Path, text: str) -> None:
    (folder / "example.toml").write_text(text)
    load_catalogue(folder)


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        '[api]\nbase_url = "https://api.example.com"\ncheck = "GET /me"',
        f'[api]\nbase_url = "https://{{shop}}.example.com/api"\ncheck = "GET /shops/{{shop}}"{HOST}',
        '[api]\nbase_url = "https://api.example.com/bot{token}"\ncheck = "GET /getMe"\ncheck_ok = "/ok"',
        '[api]\nsources = 2\ncheck = "GET https://api.example.net/me"',
        '[api]\nbase_url = "https://api.example.com"\ncredential = { in = "query", name = "api_key" }',
    ],
)
def test_what_is_right_is_taken(tmp_path: Path, text: str) -> None:
    load(tmp_path, ENTRY + text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('base_url = "http://api.example.com"', "api.base_url: .*use an https URL"),
        ('base_url = "https://api.example.com/"', "api.base_url: .*leave out the one at its end"),
        ('base_url = "https://api.example.com/v1?a=b"', "api.base_url: has no query"),
        ('base_url = "https://api.example.net"\nsources = 1', "api.base_url: example.net is not the domain"),
        ('base_url = "https://api.example.com"\nfurther = { up = "https://up.evil.example" }', "api.further.up: evil"),
        ('base_url = "https://api.example.com"\ncheck = "GET https://b.example.net/me"', "api.check: example.net is"),
        ('base_url = "https://api.example.com"\nverification = "confirmed"', "api.verification: .*sources = 2"),
        ('further = { up = "https://up.example.com" }', "api.further: .*base_url"),
        ('base_url = "https://{token}.example.com"', "api.base_url: {token} can only stand in its path"),
        (
            'base_url = "https://example.com/{token}"\ncredential = { name = "X-Key" }',
            "api.credential: base_url has {token} already",
        ),
        ('credential = { in = "basic", value = "a" }', "api.credential.value: .*username and password"),
        ('credential = { password = "x" }', 'api.credential.password: only of in = "basic"'),
        ('credential = { in = "query" }', "api.credential.name: is required"),
        ('credential = { in = "query", name = "a b" }', "api.credential.name 'a b': use letters"),
        ('credential = { in = "query", name = "key", prefix = "Bearer " }', "api.credential.prefix: only of"),
        ('credential = { name = "Host" }', "api.credential.name 'Host': use a header's name"),
        ('credential = { prefix = "Clé " }', "api.credential: .*visible ASCII"),
        ('headers = { Authorization = "x" }', "api.headers.Authorization: carries the credential"),
        ('headers = { Content-Length = "1" }', "api.headers.Content-Length: each call has its own"),
        ('rate = { after = ["a:b"] }', "api.rate.after 'a:b': use a header's name"),
        ('check = "GET /me"', "api.check: is a path below base_url"),
        ('check_ok = "/ok"', "api.check_ok: belongs to a check"),
        ('base_url = "https://example.com"\ncheck = "POST /me"', "api.check: a check only reads"),
        ('base_url = "https://example.com"\ncheck = "GET /me"\ncheck_body = "{}"', "api.check_body: a GET has none"),
        ('base_url = "https://example.com"\ncheck = "GET /me"\ncheck_ok_values = ["a"]', "api.check_ok_values: say in"),
        ('base_url = "https://example.com"\ncheck = "HEAD /me"\ncheck_ok = "/a"', "api.check_ok: an answer to HEAD"),
        ('base_url = "https://example.com"\ncheck = "POST /graphql"\ncheck_body = "{}"', "api.check_ok: GraphQL"),
        ('base_url = "https://example.com"\ncheck = "me"', "api.check: .*write a method and a path"),
        ('safe = ["GET /me"]', "api.safe 'GET /me': .*every GET is safe"),
        ('forbidden = ["tokens"]', "api.forbidden.0: .*write a method and a path"),
        ("expired = [{ status = 200 }]", "api.expired.0: .*add a pointer"),
        ('expired = [{ status = 400, values = ["a"] }]', "api.expired.0.values: say in pointer"),
    ],
)
def test_what_is_wrong_says_where_and_what_to_do(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load(tmp_path, f"{ENTRY}[api]\n{text}")


def test_a_variable_in_an_address_of_the_api_is_held_by_its_pattern(tmp_path: Path) -> None:
    base = '[api]\nbase_url = "https://example.com"\ncheck = "GET /shops/{shop}"\n'
    with pytest.raises(ConfigurationError, match=r"variables.shop: is part of a URL .api.check., so it"):
        load(tmp_path, f'{ENTRY}{base}[variables.shop]\ntitle = "Shop"')
    anywhere = '[api]\nbase_url = "{instance}"\n[variables.instance]\ntitle = "Instance"\nsource = "token"\n'
    pattern = 'from = "/instance"\npattern = "https://.+"\nexample = "https://a.example.com"'
    with pytest.raises(ConfigurationError, match=r"variables.instance.pattern: lets .* into api.base_url"):
        load(tmp_path, f"{ENTRY}{anywhere}{pattern}")


def test_a_secret_stands_in_no_address(tmp_path: Path) -> None:
    use = '[api.credential]\nin = "basic"\nusername = "{user}"\npassword = "{password}"\n'
    load(tmp_path, f'{KEY}{use}[api]\nbase_url = "https://api.example.net/v1"')
    for text in ('base_url = "https://example.com/{password}"', 'check = "GET https://example.com/{password}"'):
        with pytest.raises(ConfigurationError, match=r"{password} is not declared"):
            load(tmp_path, f"{KEY}{use}[api]\n{text}")
