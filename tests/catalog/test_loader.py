"""The app library's files: all of them are good, families share, a folder adds, and what is not good says where."""

import base64
import re
from pathlib import Path

import pytest

from evergrant.app_types import AppType
from evergrant.catalog.host_values import value_from_address
from evergrant.catalog.loader import dcr_presets, load_catalogue
from evergrant.catalog.template import Template
from evergrant.errors import ConfigurationError

GOOD = """
name = "Example"
category = "other"
documentation_url = "https://example.com/docs"
verification = "unconfirmed"
authorization_endpoint = "https://example.com/authorize"
token_endpoint = "https://example.com/token"
"""
FAMILY = (
    GOOD
    + """
authorization_params = { prompt = "consent", audience = "api" }
[scopes]
read = "Read"
[variables.region]
title = "Region"
enum = ["eu", "us"]
[token_response]
access_token = "/data/access_token"
[[templates]]
id = "example-eu"
name = "Example EU"
authorization_params = { audience = "eu", prompt = "", region = "{region}" }
default_scopes = ["read", "write"]
[templates.scopes]
write = "Write"
[templates.variables.region]
default = "eu"
[[templates]]
id = "example-us"
token_endpoint = "https://{region}.example.com/token"
"""
)


def loaded(folder: Path, text: str, name: str = "example") -> Template:
    (folder / f"{name}.toml").write_text(text)
    return load_catalogue(folder)[name]


def test_every_file_of_the_library_is_good() -> None:
    assert len(load_catalogue()) >= 25
    assert list(load_catalogue()) == sorted(load_catalogue())
    assert all(template.id == key for key, template in load_catalogue().items())


def test_the_library_sends_nothing_in_the_clear() -> None:
    for template in load_catalogue().values():
        texts = (template.authorization_endpoint, template.token_endpoint, template.revocation_endpoint)
        assert not [text for text in texts if text.startswith("http://")], template.id


def test_no_two_entries_of_the_library_have_one_name() -> None:
    names = [template.name for template in load_catalogue().values()]
    assert len(names) == len(set(names))


def test_what_is_said_to_replace_an_entry_is_there_and_does_not_end() -> None:
    library = load_catalogue()
    replaced = [entry.replaced_by for entry in library.values() if entry.replaced_by]
    assert "google-health" in replaced
    assert all(library[entry_id].retirement is None for entry_id in replaced)


def test_every_entry_of_the_library_says_when_somebody_looked_at_it() -> None:
    assert [key for key, entry in load_catalogue().items() if entry.reviewed is None] == []


def test_a_variable_can_follow_from_another_one(tmp_path: Path) -> None:
    follower = 'from = "region"\nvalues = { eu = "acme-eu", us = "acme" }\n'
    shop = loaded(tmp_path, HOST + FOLLOWER + follower + REGION).variables["shop"]
    assert (shop.is_asked_for, shop.is_required, shop.values["us"]) == (False, False, "acme")


def test_every_entry_of_keys_says_where_calls_carry_them() -> None:
    keys = [entry for entry in load_catalogue().values() if entry.app_type == AppType.API_KEY]
    assert len(keys) >= 120
    for entry in keys:
        names = {"token"} if not entry.fields else set(entry.fields)
        carried = entry.api.carried({name: f"<{name}>" for name in {*names, *entry.variables}})
        places = [entry.api.base_url, *carried.headers.values(), *carried.query.values()]
        texts = [unbasic(text) for text in places]
        assert all(any(f"<{name}>" in text or f"{{{name}}}" in text for text in texts) for name in names), entry.id


def unbasic(text: str) -> str:
    return base64.b64decode(text.removeprefix("Basic ")).decode() if text.startswith("Basic ") else text


def test_every_preset_is_good() -> None:
    assert list(dcr_presets()) == sorted(dcr_presets())
    assert len(dcr_presets()) >= 20
    assert all(preset.id == key for key, preset in dcr_presets().items())


def test_a_files_name_is_the_id_and_seven_lines_are_enough(tmp_path: Path) -> None:
    template = loaded(tmp_path, GOOD)
    assert (template.id, template.name) == ("example", "Example")
    assert template.token_endpoint_auth_methods_supported == ("client_secret_post",)
    assert template.pkce == "supported"


def test_the_members_of_a_family_share_what_is_at_the_top_and_win_over_it(tmp_path: Path) -> None:
    (tmp_path / "family.toml").write_text(FAMILY)
    found = load_catalogue(tmp_path)
    eu, us = found["example-eu"], found["example-us"]
    assert "family" not in found
    assert (eu.name, us.name) == ("Example EU", "Example")
    assert eu.authorization_params == {"prompt": "", "audience": "eu", "region": "{region}"}
    assert us.authorization_params == {"prompt": "consent", "audience": "api"}
    assert dict(eu.scopes) == {"read": "Read", "write": "Write"}
    assert (eu.variables["region"].title, eu.variables["region"].default) == ("Region", "eu")
    assert (eu.variables["region"].is_required, us.variables["region"].is_required) == (False, True)
    assert eu.token_response.access_token == ("/data/access_token",)
    assert eu.token_response.refresh_token == ("/refresh_token",)


def test_a_folder_adds_entries_and_replaces_built_in_ones(tmp_path: Path) -> None:
    loaded(tmp_path, GOOD, "our-crm")
    loaded(tmp_path, GOOD, "github")
    (tmp_path / "README.md").write_text("not a provider")
    found = load_catalogue(tmp_path)
    assert found.keys() == load_catalogue().keys() | {"our-crm"}
    assert list(found) == sorted(found)
    assert found["github"].token_endpoint == "https://example.com/token"
    assert load_catalogue()["github"].token_endpoint == "https://github.com/login/oauth/access_token"


def test_how_scopes_are_spelled_as_addresses_is_known_of_all_entries_each_spelling_once(tmp_path: Path) -> None:
    spelled = '[scope_aliases]\nread = ["https://api.example.com/read", "short"]\n'
    for name in ("one", "two"):
        (tmp_path / f"{name}.toml").write_text(GOOD + spelled)
    library, built_in = load_catalogue(tmp_path), load_catalogue()
    assert library.scope_addresses["read"] == ("https://api.example.com/read",)
    assert {**built_in.scope_addresses, "read": library.scope_addresses["read"]} == library.scope_addresses
    found = {
        (scope, spelling)
        for entry in built_in.values()
        for scope, spellings in entry.scope_aliases.items()
        for spelling in spellings
        if "://" in spelling
    }
    assert sorted(found) == sorted((scope, one) for scope, all_ in built_in.scope_addresses.items() for one in all_)
    assert found


def test_an_entry_of_a_folder_may_begin_with_a_built_in_one(tmp_path: Path) -> None:
    text = (
        'extends = "slack"\ndefault_scopes = ["users:read", "team:read"]\nscopes = { "team:read" = "See the team" }\n'
    )
    slack, built_in = loaded(tmp_path, text, "slack"), load_catalogue()["slack"]
    assert slack.default_scopes == ("users:read", "team:read")
    assert (slack.name, slack.scope_separator, slack.variables) == ("Slack", ",", built_in.variables)
    with pytest.raises(ConfigurationError, match="no built-in 'slak'; did you mean slack"):
        loaded(tmp_path, text.replace('"slack"', '"slak"'), "slack")


def test_two_entries_may_not_have_one_id(tmp_path: Path) -> None:
    loaded(tmp_path, GOOD, "example-eu")
    with pytest.raises(ConfigurationError, match=r"family\.toml \[example-eu\].*taken by example-eu\.toml"):
        loaded(tmp_path, FAMILY, "family")


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="EVERGRANT_CATALOG_DIR"):
        load_catalogue(tmp_path / "nowhere")


def test_a_member_of_a_family_can_do_without_a_variable_of_the_family(tmp_path: Path) -> None:
    without = '[[templates]]\nid = "example-one"\nname = "One"\n[templates.variables]\nregion = ""\n'
    (tmp_path / "family.toml").write_text(FAMILY + without)
    found = load_catalogue(tmp_path)
    assert found["example-one"].variables == {}
    assert found["example-us"].variables.keys() == {"region"}
    with pytest.raises(ConfigurationError, match=r"variables\.shop"):
        loaded(tmp_path, GOOD + '[variables]\nshop = ""\n')


def test_only_what_a_browser_opens_may_have_a_fragment(tmp_path: Path) -> None:
    text = GOOD.replace("/docs", "/docs#oauth").replace("/authorize", "/#/{region}/authorize")
    text += '[variables.region]\ntitle = "Region"\nenum = ["eu"]\n'
    template = loaded(tmp_path, text)
    assert template.documentation_url == "https://example.com/docs#oauth"
    assert template.authorization_endpoint == "https://example.com/#/{region}/authorize"


def test_words_for_a_dead_refresh_token_say_something(tmp_path: Path) -> None:
    words = '[{ error = "Bad Token", status = 403 }, { description = "gone" }]'
    template = loaded(tmp_path, f"{GOOD}dead_refresh_token = {words}\n")
    bad_token, gone = template.dead_refresh_token
    assert bad_token.fits(403, ["7", "bad-token"], ["whatever"])
    assert not bad_token.fits(400, ["bad-token"], [])
    assert gone.fits(404, [], ["", "It is GONE."])
    assert not gone.fits(404, ["another"], ["away"])
    with pytest.raises(ConfigurationError, match=r"dead_refresh_token\.0: needs error or description"):
        loaded(tmp_path, GOOD + "dead_refresh_token = [{ status = 400 }]\n")


def test_a_key_may_be_the_password_beside_a_fixed_or_a_variable_user_name(tmp_path: Path) -> None:
    keys = GOOD[: GOOD.index("authorization_endpoint")] + 'app_type = "apikey"\n'
    variable = '[variables.sid]\ntitle = "SID"\nsource = "user"\n'
    basic = '[api.credential]\nin = "basic"\nusername = "{sid}"\npassword = "{token}"\n'
    carried = loaded(tmp_path, keys + basic + variable).api.carried({"sid": "AC1", "token": "k"})
    assert carried.headers == {"Authorization": "Basic QUMxOms="}
    with pytest.raises(ConfigurationError, match=r"api\.credential\.username: \{sid\} is not declared"):
        loaded(tmp_path, keys + basic)


def test_a_host_is_taken_out_of_a_pasted_address_where_only_the_api_has_it() -> None:
    library = load_catalogue()
    for entry, pasted, host in (
        ("ghost-admin", "https://acme.ghost.io/ghost/", "acme.ghost.io"),
        ("sap-business-one", "https://b1.example.com:50000/b1s/v2", "b1.example.com:50000"),
        ("woocommerce", "https://evil.example@shop.example.com/", "https://evil.example@shop.example.com/"),
    ):
        assert value_from_address(library[entry], "host", pasted) == host


def test_whoever_brings_all_that_is_sent_may_say_too_whose_server_it_is_for(tmp_path: Path) -> None:
    keys = GOOD[: GOOD.index("authorization_endpoint")] + 'app_type = "apikey"\n'
    host = '[variables.host]\ntitle = "Host"\nsource = "user"\npattern = "[a-z.]+"\nexample = "shop.example.com"\n'
    api = '[api]\nbase_url = "https://{host}/v1"\n'
    assert loaded(tmp_path, keys + host + api).api.base_url == "https://{host}/v1"
    developer = '[variables.developer]\ntitle = "Developer token"\n'
    for own, headers in ((developer, '{ X-Dev = "{developer}" }'), ("", '{ X-Client = "{client_secret}" }')):
        with pytest.raises(ConfigurationError, match=r"variables\.host\.pattern: lets 'evil.*' into api\.base_url"):
            loaded(tmp_path, f"{keys}{host}{own}{api}headers = {headers}\n")


VARIABLE = '[variables.shop]\ntitle = "Shop"\n'
TOKEN = "https://example.com/token"
FOLLOWER = VARIABLE + 'source = "variable"\n'
REGION = '[variables.region]\ntitle = "Region"\nenum = ["eu", "us"]\n'
PAGE = 'page = "https://example.com/news"'
HOST = GOOD.replace(TOKEN, "https://{shop}.example.com/token")
INSTALLED = (
    GOOD
    + """app_type = "installation"
installation_check = "https://example.com/user"
assertion = { alg = "RS256", claims = { iss = "{client_id}" } }
login = [{ url = "https://example.com/{shop}/token" }]
"""
    + VARIABLE
    + 'source = "callback"\nfrom = "id"\npattern = "[0-9]+"\nrequired = true\n'
)
CAPTURED = VARIABLE + 'source = "token"\nfrom = "/shop"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + 'tokenn_endpoint = "https://x.example.com"\n', "tokenn_endpoint: there is no such field; did you mean"),
        (GOOD.replace('name = "Example"\n', ""), "name: is required"),
        (
            GOOD.replace(TOKEN, "http://example.com/token"),
            "token_endpoint: 'http://example.com/token': use an https URL",
        ),
        (GOOD.replace(TOKEN, "https://example.com/{to ken}"), "token_endpoint"),
        (GOOD.replace(TOKEN, f"{TOKEN}#x"), "token_endpoint: 'https://example.com/token#x': use an https URL without"),
        (GOOD.replace("/authorize", "/#/a b"), "write something without spaces behind the '#'"),
        (GOOD.replace("/authorize", "/authorize#"), "behind the '#', or remove it"),
        (GOOD + 'redirect_uri = "https://evil.example"\n', "redirect_uri: write one variable of source 'app'"),
        (GOOD + 'redirect_uri = "{shop}"\n' + VARIABLE, "variables.shop.pattern: lets an address into redirect_uri"),
        (
            GOOD + 'redirect_uri = "{shop}"\n' + VARIABLE + 'source = "user"\npattern = "[a-z]+"\n',
            "redirect_uri: {shop}",
        ),
        (GOOD.replace(f'token_endpoint = "{TOKEN}"', ""), "token_endpoint: is required"),
        (GOOD + 'id = "other"\n', "id: is the file's name"),
        (GOOD + 'default_scopes = ["read"]\n', "default_scopes: describe in [scopes] too: read"),
        (GOOD + 'default_scopes = ["read write"]\n', "a scope has no spaces"),
        (GOOD + 'app_type = "apikey"\n', 'token_endpoint: an entry with app_type = "apikey" has none: leave it out'),
        (GOOD + 'fields = { key = { title = "Key" } }\n', "fields: are for entries whose credentials are uploaded"),
        (INSTALLED, "installation_check: does not ask about {shop}, which anybody can write into an address"),
        (GOOD.replace("unconfirmed", "confirmed"), "verification: 'confirmed' needs sources"),
        (f"{GOOD}revoke_replaced = true\n", "revoke_replaced: needs revocation_endpoint or"),
        (GOOD + 'pkce = "yes"\n', "pkce"),
        (GOOD + 'authorization_params = { state = "1" }\n', "authorization_params.state: the protocol sets it"),
        (GOOD + 'refresh_params = { grant_type = "x" }\n', "refresh_params.grant_type"),
        (GOOD + 'parameter_names = { clientid = "key" }\n', "parameter_names: clientid: not a parameter"),
        (GOOD + 'parameter_names = { state = "" }\n', "state: can be given another name, but not be left out"),
        (GOOD + 'parameter_names = { client_id = "" }\n', "token_request_headers say who we are"),
        (GOOD + 'token_request_method = "GET"\n', "token_request_format"),
        (GOOD + 'reviewed = "last week"\n', "reviewed: "),
        (GOOD + f'retires = [{{ on = 2027-01-01, {PAGE}, value = "{TOKEN}" }}]\n', "field and value belong together"),
        (
            GOOD + f'retires = [{{ on = 2027-01-01, {PAGE}, field = "token_endpoint", value = "{TOKEN}" }}]\n',
            "retires.0.value: is what token_endpoint still says",
        ),
        (GOOD + f"retires = [{{ onn = 2027-01-01, {PAGE} }}]\n", "did you mean on?"),
        (GOOD + 'replaced_by = "other"\n', "replaced_by: only of an entry that retires"),
        (HOST + FOLLOWER + 'from = "region"\n', "name the other variable in `from`, and give `values`"),
        (
            HOST + FOLLOWER + 'from = "region"\nvalues = { eu = "a" }\n',
            "variables.shop.from: name a variable of source 'app' or 'user' that has an enum",
        ),
        (
            HOST + FOLLOWER + f'from = "region"\nvalues = {{ eu = "a" }}\n{REGION}',
            "variables.shop.values: has none for",
        ),
        (GOOD + VARIABLE + 'values = { eu = "a" }\n', "`values` is only for source 'variable'"),
        (GOOD + 'token_request_headers = { "X Y" = "1" }\n', "use a header name"),
        (GOOD + 'token_endpoint_auth_methods_supported = ["private_key_jwt"]\n', "token_endpoint_auth_signing_alg"),
        (GOOD + 'hook = "nothing"\n', "hook"),
        (GOOD + f'revocation_endpoint = "{TOKEN}"\nrevocation = {{ url = "{TOKEN}" }}\n', "not both"),
        (GOOD + '[token_response]\naccess_token = "data.token"\n', "use a JSON pointer"),
        (GOOD + VARIABLE, "variables.shop: is asked for and used nowhere"),
        (GOOD + 'scopes = { "{shop}/read" = "Read" }\n', "scopes.{shop}/read: {shop} is not declared"),
        (
            GOOD + 'scopes = { "{shop}/read" = "Read" }\n' + CAPTURED,
            "scopes.{shop}/read: {shop} (source 'token') is not",
        ),
        (GOOD + 'scopes = { "{shop}/read" = "Read" }\n' + VARIABLE, "variables.shop.pattern: lets 'a b' into a scope"),
        (HOST, "token_endpoint: {shop} is not declared: add [variables.shop]"),
        (HOST + VARIABLE, "variables.shop: is part of a URL (token_endpoint), so it needs a pattern"),
        (HOST + VARIABLE + "pattern = '['\n", "variables.shop.pattern: '[': not a regular expression"),
        (HOST + CAPTURED, "token_endpoint: {shop} (source 'token') is not known yet"),
        (GOOD + CAPTURED.replace("/shop", "shop"), "use a JSON pointer, like /instance_url"),
        (GOOD + CAPTURED.replace("token", "context"), "source 'context' needs a [context_request]"),
        (GOOD + VARIABLE + 'source = "callback"\n', "say in `from`"),
        (GOOD + VARIABLE + 'from = "shop"\n', "`from` is for"),
        (
            GOOD + VARIABLE.replace("shop", "state") + 'from = "x"\nsource = "callback"\n',
            "variables.state: the name has",
        ),
        (GOOD + VARIABLE + 'pattern = "[a-z]+"\ndefault = "1"\n', "default '1': use a value that matches"),
        ("[[templates]]\nname = 'x'\n", "templates, number 1: id: is required"),
        ("templates = 1\n", "write each as [[templates]]"),
        ("name = ", "example.toml"),
    ],
)
def test_a_file_that_is_not_good_says_where_and_what_to_do(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=r"example\.toml") as error:
        loaded(tmp_path, text)
    assert said in error.value.message


@pytest.mark.parametrize(
    ("endpoint", "source", "pattern", "example", "good"),
    [
        ("https://{shop}.example.com/token", "user", "[a-z0-9-]+", "", True),
        ("https://{shop}.example.com/token", "user", "[a-z0-9.-]+", "", False),  # one label is all that a shop needs
        ("https://{shop}.example.com/token", "app", "[a-z0-9-]+/?", "", True),
        ("https://{shop}.example.com/token", "app", ".+", "", False),
        ("https://{shop}/token", "app", "[a-z0-9.-]+", "", True),  # the operator may name any host
        ("https://{shop}/token", "user", "[a-z0-9.-]+", "", False),
        ("https://{shop}/token", "user", "[a-z0-9-]+\\\\.example\\\\.com", "acme.example.com", True),
        ("https://{shop}/token", "user", "[a-z0-9-]*example\\\\.com", "acme-example.com", False),
        ("https://{shop}/token", "user", "[a-z]+\\\\.(com|eu)", "acme.eu", False),
        ("https://{shop}/token", "user", "acme\\\\.[a-z]+", "acme.eu", False),
        ("https://{shop}/token", "user", "[a-z]+\\\\.co\\\\.uk", "acme.co.uk", False),
        ("https://{shop}/token", "user", "[a-z]+\\\\.acme\\\\.co\\\\.uk", "eu.acme.co.uk", True),
        ("https://{shop}/token", "user", "acme([.][a-z]+)?[.]com", "acme.com", False),
        ("https://{shop}/token", "user", "[0-9.]+", "1.1", False),
        ("https://{shop}.com/token", "user", "[a-z0-9-]+", "acme", False),
        ("https://{shop}example.com/token", "user", "[a-z]+-", "acme-", False),
        ("https://{shop}.co.uk/token", "user", "[a-z]+", "acme", False),
        ("https://accounts.example.{shop}/token", "user", "(com|eu)", "eu", True),
        ("https://accounts.example.{shop}/token", "user", "[a-z.]+", "eu", False),
        ("https://accounts.example.{shop}/token", "user", "[a-z]{2}", "eu", False),
        ("https://example.com/{shop}/token", "user", "[a-z0-9-]+", "", True),
        ("https://example.com/{shop}/token", "user", "[^/]+", "", False),
        ("https://example.com:{shop}/token", "user", "[0-9]+", "", True),
        ("{shop}/token", "callback", "https://[a-z]+\\\\.example\\\\.com", "https://eu.example.com", True),
        ("{shop}/token", "callback", "https://.+", "", False),
        ("{shop}/token", "callback", "https://[a-z.]+", "", False),
        ("{shop}/token", "callback", "https://[a-z]+\\\\.com", "https://example.com", False),
        ("{shop}/token", "app", "https?://[a-z.]+", "", False),
    ],
)
def test_nobody_can_lead_a_request_to_another_place(
    tmp_path: Path, endpoint: str, source: str, pattern: str, example: str, good: bool
) -> None:
    text = GOOD.replace(TOKEN, endpoint) + VARIABLE + f'source = "{source}"\npattern = "{pattern}"\n'
    text += 'from = "shop"\nrequired = true\n' if source == "callback" else ""
    text += f'example = "{example}"\n' if example else ""
    if good:
        assert loaded(tmp_path, text).variables["shop"].problem_with("a?b")
    else:
        with pytest.raises(ConfigurationError, match=r"variables\.shop\.pattern: lets .* into token_endpoint"):
            loaded(tmp_path, text)


@pytest.mark.parametrize("source", ["token", "context"])
def test_an_answer_cannot_name_a_host_of_any_domain(tmp_path: Path, source: str) -> None:
    """Who uploads a connection gives these values too."""
    shape = CAPTURED.replace("token", source) + "default = 'https://eu.example.com'\n"
    context = "[context_request]\nurl = 'https://example.com/me'\n" if source == "context" else ""
    text = 'revocation = { url = "{shop}/revoke" }\n' + GOOD + context + shape
    with pytest.raises(ConfigurationError, match=r"variables\.shop\.pattern: lets .* into revocation\.url"):
        loaded(tmp_path, text + "pattern = 'https://[a-z0-9.:-]+'\n")
    good = loaded(tmp_path, text + "pattern = 'https://[a-z]+[.]example[.]com'\n").variables["shop"]
    assert good.problem_with("https://us.example.com") == ""


def test_a_whole_host_that_others_give_needs_an_example_to_check_its_pattern_by(tmp_path: Path) -> None:
    text = GOOD.replace(TOKEN, "https://{shop}/token") + VARIABLE + 'source = "user"\n'
    with pytest.raises(ConfigurationError, match=r"variables\.shop: names a host .*: give an example"):
        loaded(tmp_path, text + 'pattern = "[a-z]+[.]example[.]com"\n')


def test_a_variables_value_is_checked_whole(tmp_path: Path) -> None:
    region = loaded(tmp_path, HOST + VARIABLE + 'pattern = "[a-z]+"\nexample = "acme"\n').variables["shop"]
    assert region.problem_with("acme") == ""
    assert region.problem_with("acme\n") == "use at most 500 printable characters"
    assert region.problem_with("acme.evil") == "use a value like acme"


def test_the_examples_of_the_manual_can_be_loaded(tmp_path: Path) -> None:
    manual = (Path(__file__).parents[2] / "docs/catalogue.md").read_text()
    examples = re.findall(r"```toml\n(.*?)```", manual, flags=re.DOTALL)
    assert len(examples) == 10
    for number, example in enumerate(examples):
        (tmp_path / f"example-{number}.toml").write_text(example)
    found = load_catalogue(tmp_path)
    assert {"example-0", "example-mail", "example-files", *(f"example-{n}" for n in range(2, 10))} <= found.keys()
    assert {found[key].app_type for key in found if key.startswith("example-")} == set(AppType)
    assert found["example-mail"].scopes.keys() == {"openid", "mail.read"}
