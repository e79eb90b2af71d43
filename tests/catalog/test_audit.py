"""The audit of the app library: what it reads out of packages. The samples are written in the ways of real ones."""

import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.audit import javascript, python, tables
from scripts.audit.claims import Claim
from scripts.audit.sources import SOURCES, Source, claims_of, version_of

AUTHORIZE, TOKEN = "https://id.example.com/authorize", "https://id.example.com/token"
BOTH = {"authorization_endpoint": (AUTHORIZE,), "token_endpoint": (TOKEN,)}


def only(claims: Iterator[Claim]) -> Claim:
    (claim,) = claims
    return claim


# Python: each of these is a way in which a real package says it.

CLASS = """
class Base:
    AUTHORIZATION_URL = "https://id.example.com/authorize"
    SCOPE_SEPARATOR = ","

class ExampleOAuth2(Base):
    name = "example"
    HOST = "https://id.example.com"
    ACCESS_TOKEN_URL = HOST + "/token"
"""
PROPERTIES = """
class ExampleAdapter:
    provider_id = "example"
    basic_auth = True

    @property
    def authorize_url(self):
        path = "authorize"
        return f"https://id.example.com/{path}"

    @property
    def access_token_url(self):
        path = "token"
        return "https://{}/{}".format(self.host, path)
"""
FUNCTION = """
def make_example_blueprint(tenant="x"):
    return Blueprint(
        "example",
        authorization_url="https://id.example.com/authorize",
        token_url=settings.get("TOKEN_URL", "https://id.example.com/token"),
    )
"""
CONSTANTS = """
AUTHORIZE_ENDPOINT = "https://id.example.com/authorize"
ACCESS_TOKEN_ENDPOINT = "https://id.example.com/token"

class Example(BaseOAuth2):
    def __init__(self):
        super().__init__(AUTHORIZE_ENDPOINT, ACCESS_TOKEN_ENDPOINT, token_endpoint_auth_method="client_secret_post")
"""
TRAITLETS = """
class ExampleOAuthenticator:
    @default("authorize_url")
    def _authorize_url_default(self):
        return "https://id.example.com/authorize"

    @default("token_url")
    def _token_url_default(self):
        return "https://id.example.com/token"
"""
DICT = """
class Example(object):
    NAME = "example"
    OAUTH_CONFIG = {
        "authorize_url": "https://id.example.com/authorize",
        "access_token_url": "https://id.example.com/token",
    }
"""


@pytest.mark.parametrize("text", [CLASS, FUNCTION, CONSTANTS, TRAITLETS, DICT])
def test_a_python_module_is_read_however_it_names_its_endpoints(text: str) -> None:
    found = only(python.claims_in("package", "package/example.py", text))
    assert (found.source, found.name) == ("package", "example")
    assert {key: found.facts[key] for key in BOTH} == BOTH


def test_a_property_is_read_with_its_own_variables_and_what_is_filled_in_is_left_open() -> None:
    found = only(python.claims_in("package", "providers/example/views.py", PROPERTIES))
    assert found.facts["authorization_endpoint"] == (AUTHORIZE,)
    assert found.facts["token_endpoint"] == ("https://{x}/{x}",)
    assert found.facts["auth_method"] == ("client_secret_basic",)


def test_a_python_class_inherits_what_it_does_not_say() -> None:
    assert only(python.claims_in("package", "example.py", CLASS)).facts["scope_separator"] == (",",)


def test_a_module_of_many_providers_makes_a_claim_of_each() -> None:
    text = "\n".join(CLASS.replace("Base", f"{name}Base").replace("Example", name) for name in ("One", "Two"))
    assert len(list(python.claims_in("package", "oauth2.py", text))) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class A(BaseOAuth2PKCE[R]): pass", "supported"),
        ("class A:\n    pkce_enabled_default = True", "supported"),
        ("class A:\n    DEFAULT_USE_PKCE = False", "absent"),
        ("class A: pass", ""),
    ],
)
def test_pkce_is_read_from_python_settings(text: str, said: str) -> None:
    assert python.pkce_in(text) == said


def test_oauth_1_says_nothing() -> None:
    text = FUNCTION.replace("token_url=", 'request_token_url="https://id.example.com/request", token_url=')
    assert list(python.claims_in("package", "example.py", text)) == []


def test_half_a_provider_says_nothing() -> None:
    assert list(python.claims_in("package", "example.py", 'TOKEN_URL = "https://id.example.com/token"')) == []


def test_code_is_parsed_and_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    list(python.claims_in("package", "example.py", f"open({str(mark)!r}, 'w')\n{CLASS}"))
    assert not mark.exists()


# JavaScript

KEYS = """
const HOST = "https://id.example.com"; // not "https://other.example.com"
export default function Example(options) {
    return { id: "example", authorization: { params: { scope: "a" }, url: `${HOST}/authorize` }, token: HOST + "/token",
             client: { token_endpoint_auth_method: "client_secret_post" }, checks: ["pkce", "state"] };
}
"""
FIELDS = """
class Example {
    constructor(baseURL = "https://id.example.com") {
        this.authorizationEndpoint = joinURIAndPath(baseURL, "/authorize");
        this.tokenEndpoint = joinURIAndPath(baseURL, "token");
    }
}
"""
FORMS = """
class Example { properties = [
    { displayName: 'Authorization URL', name: 'authUrl', type: 'hidden', default: 'https://id.example.com/authorize' },
    { displayName: 'Token URL', name: 'accessTokenUrl', type: 'options',
      options: [{ name: 'EU', value: 'https://id.example.com/token' }] },
    { displayName: 'Authentication', name: 'authentication', type: 'hidden', default: 'header' },
]; }
"""
CHOICES = """
const base = config?.base ?? "https://id.example.com";
config = defu(config, { authorizationURL: `${base}/authorize`,
    tokenURL: sandbox === true ? "https://sandbox.example.com/token" : "https://id.example.com/token" });
"""


@pytest.mark.parametrize("text", [KEYS, FIELDS, FORMS, CHOICES])
def test_a_javascript_file_is_read_however_it_names_its_endpoints(text: str) -> None:
    found = only(javascript.claims_in("package", "providers/example.js", text))
    assert found.name == "example"
    assert all(BOTH[key][0] in found.facts[key] for key in BOTH)


def test_javascript_says_how_a_client_authenticates_and_whether_pkce_is_used() -> None:
    assert only(javascript.claims_in("p", "example.js", KEYS)).facts["pkce"] == ("supported",)
    assert only(javascript.claims_in("p", "example.js", KEYS)).facts["auth_method"] == ("client_secret_post",)
    form = only(javascript.claims_in("p", "ExampleOAuth2Api.credentials.js", FORMS))
    assert (form.name, form.facts["auth_method"]) == ("Example", ("client_secret_basic",))


def test_a_file_of_configurations_makes_a_claim_of_each() -> None:
    paths = "authorizePath: '/authorize', tokenHost: 'https://id.example.com', tokenPath: '/token'"
    text = "x.EXAMPLE_CONFIGURATION = { " + paths + " }"
    assert only(javascript.blocks_in("package", "index.js", text)) == Claim("package", "example", BOTH)


# Tables


def test_a_json_table_leaves_out_oauth_1() -> None:
    row = {"authorize_url": AUTHORIZE, "access_url": TOKEN, "scope_delimiter": ","}
    text = json.dumps({"example": {**row, "oauth": 2}, "old": {**row, "oauth": 1}})
    assert only(tables.json_in("p", "", text)) == Claim("p", "example", {**BOTH, "scope_separator": (",",)})


def test_a_yaml_table_knows_aliases_choices_and_what_is_filled_in() -> None:
    text = """
base: {auth_mode: OAUTH2, authorization_url: 'https://${c.host}/authorize || https://id.example.com/authorize',
       token_url: https://id.example.com/token, disable_pkce: true, token_request_auth_method: basic}
example: {alias: base}
key: {auth_mode: API_KEY}
"""
    found = {each.name: each.facts for each in tables.yaml_in("p", "", text)}
    assert found.keys() == {"base", "example"}
    assert found["example"]["authorization_endpoint"] == ("https://{x}/authorize", AUTHORIZE)
    assert (found["base"]["pkce"], found["base"]["auth_method"]) == (("absent",), ("client_secret_basic",))


def test_a_yaml_table_says_where_an_api_is_and_where_the_credential_goes() -> None:
    text = """
key: {auth_mode: API_KEY, token_url: 'https://id.example.com/token',
      proxy: {base_url: 'https://${c.site}.example.com/v2', headers: {X-Key: '${apiKey}', X-Version: '2'}}}
pair: {auth_mode: BASIC, proxy: {base_url: 'https://api.example.com'}}
query: {auth_mode: API_KEY, proxy: {query: {Key: '${apiKey}'}}}
"""
    found = {each.name: each.facts for each in tables.yaml_in("p", "", text)}
    assert found == {
        "key": {"api_base": ("https://{x}.example.com/v2",), "placement": ("header x-key",)},
        "pair": {"api_base": ("https://api.example.com",), "placement": ("basic",)},
        "query": {"placement": ("query key",)},
    }


def test_javascript_says_how_a_credential_is_tried() -> None:
    text = """
class ExampleApi {
    properties = [{ name: 'key', default: '' }];
    authenticate = { type: 'generic', properties: { headers: { 'X-Key': '={{$credentials.key}}' } } };
    test = { request: { baseURL: '=https://{{$credentials.site}}.example.com', url: '/me' } };
}
"""
    found = only(javascript.apis_in("p", "dist/ExampleApi.credentials.js", text))
    base = ("https://{x}.example.com",)
    assert found == Claim("p", "Example", {"api_call": base, "api_base": base, "placement": ("header x-key",)})


# Archives


def test_a_wheel_and_a_tarball_are_read_in_memory(tmp_path: Path) -> None:
    wheel = tmp_path / "a_package-1.2.3-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("lib/example/views.py", FUNCTION)
        packed.writestr("lib/example/provider.py", "pkce_enabled_default = True")
        packed.writestr("lib/tests/views.py", FUNCTION)
    source = Source("a-package", "pip", "lib/*/views.py", python.claims_in, skip="*/tests/*", settings="provider.py")
    assert [each.facts["pkce"] for each in claims_of(source, wheel)] == [("supported",)]
    tarball = tmp_path / "scope-package-4.5.6.tgz"
    with tarfile.open(tarball, "w:gz") as packed_too:
        member = tarfile.TarInfo("../outside/example.js")  # where it would be put does not matter: nothing is unpacked
        member.size = len(KEYS.encode())
        packed_too.addfile(member, io.BytesIO(KEYS.encode()))
    assert len(claims_of(Source("@scope/package", "npm", "*.js", javascript.claims_in), tarball)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [wheel.name, tarball.name]
    assert (version_of(wheel), version_of(tarball)) == ("1.2.3", "4.5.6")


def test_a_source_may_come_in_a_package_for_each_provider(tmp_path: Path) -> None:
    source = Source("@scope/piece-*", "npm", "*.js", javascript.claims_in, parts=("example", "other"))
    assert source.names == {"@scope/piece-example": "example", "@scope/piece-other": "other"}
    assert Source("one", "npm", "*.js", javascript.claims_in).names == {"one": ""}
    tarball = tmp_path / "scope-piece-example-1.0.0.tgz"
    with tarfile.open(tarball, "w:gz") as packed:
        member = tarfile.TarInfo("package/src/index.js")
        member.size = len(KEYS.encode())
        packed.addfile(member, io.BytesIO(KEYS.encode()))
    (claim,) = claims_of(source, tarball, "example")
    assert (claim.source, claim.name) == ("@scope/piece-*", "example")


def test_there_are_sources_of_both_kinds() -> None:
    assert all(sum(source.registry == kind for source in SOURCES) >= 4 for kind in ("pip", "npm"))
