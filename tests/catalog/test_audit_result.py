"""What the audit of the app library makes of what packages say, and the table that is made of it."""

import json
from datetime import date
from types import MappingProxyType

import pytest

from evergrant.catalog.loader import load_catalogue
from evergrant.catalog.template import Template
from scripts import provider_table
from scripts.audit.apis import ApiFinding, compare_apis
from scripts.audit.claims import Claim
from scripts.audit.compare import Finding, compare, same_url
from scripts.catalog_audit import alone_of, apis_alone_of, report, result_of, stale_of, summary

AUTHORIZE, TOKEN = "https://id.example.com/authorize", "https://id.example.com/token"
END = {"on": "2027-01-01", "page": "https://example.com/news"}
BOTH = {"authorization_endpoint": (AUTHORIZE,), "token_endpoint": (TOKEN,)}


def template(**members: object) -> Template:
    return Template.model_validate(
        {
            "id": "example",
            "name": "Example",
            "category": "other",
            "documentation_url": "https://example.com/docs",
            "verification": "confirmed",
            "sources": 2,
            "authorization_endpoint": AUTHORIZE,
            "token_endpoint": TOKEN,
            **members,
        }
    )


def claim(name: str = "example", source: str = "one", **facts: str) -> Claim:
    return Claim(source, name, {**BOTH, **{key: (value,) for key, value in facts.items()}})


def finding(*claims: Claim, **members: object) -> Finding:
    return compare({"example": template(**members)}, claims)["example"]


# Comparing


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        (TOKEN, "https://ID.example.com//token/?a=b", True),
        (TOKEN, "https://id.example.com/v2/token", False),
        (TOKEN, "https://www.example.com/token", False),
        ("https://a.example.com/{version}/oauth/token", "https://a.example.com/v22.0/oauth/token", True),
        ("https://{tenant}.example.com/token", "https://acme.example.com/token", True),
        ("https://{tenant}.example.com/token", "https://acme.example.org/token", False),
        ("https://{tenant}.example.com/{realm}/token", "https://x.example.com/a/b/token", False),
        ("https://{host}/realms/{realm}/token", "https://{x}/token", True),
        ("https://{host}/token", "https://eu.example.com/oauth/token", False),
        ("{server}/oauth/token", "https://accounts.example.com/oauth/token", True),
    ],
)
def test_two_addresses_are_one_whatever_is_filled_in(ours: str, theirs: str, same: bool) -> None:
    assert same_url(ours, theirs) is same


def test_the_default_of_a_variable_is_an_address_too() -> None:
    assert same_url("https://{host}/token", "https://login.example.com/token", {"host": "login.example.com"})


def test_packages_with_both_endpoints_agree() -> None:
    found = finding(claim(source="one"), claim(source="two"))
    assert (found.agreeing, found.endpoints, found.is_alone) == ({"one", "two"}, [], False)


def test_an_endpoint_that_is_said_otherwise_is_told_with_both_values() -> None:
    found = finding(claim(token_endpoint="https://old.example.com/token"))
    (difference,) = found.endpoints
    assert (difference.field, difference.source) == ("token_endpoint", "one")
    assert (difference.ours, difference.theirs) == (TOKEN, "https://old.example.com/token")
    assert found.is_alone


def test_a_package_that_agrees_once_does_not_disagree_by_an_older_entry() -> None:
    found = finding(claim(), claim("example-oauth2", token_endpoint="https://old.example.com/token"))
    assert (found.agreeing, found.endpoints) == ({"one"}, [])


def test_another_providers_claim_says_nothing() -> None:
    other = {"authorization_endpoint": "https://other.com/authorize", "token_endpoint": "https://other.com/token"}
    assert finding(claim("other", **other)) == Finding()
    unknown = {"authorization_endpoint": "{x}/authorize", "token_endpoint": "https://id.{x}/other"}
    assert finding(claim("other", **unknown)) == Finding()


def test_a_claim_of_another_name_at_our_hosts_counts() -> None:
    assert finding(claim("alias")).agreeing == {"one"}


def test_other_facts_are_compared_only_where_the_endpoints_agree() -> None:
    said = {
        "auth_method": "client_secret_basic",
        "pkce": "absent",
        "scope_separator": ",",
        "revocation_endpoint": TOKEN,
    }
    assert [each.field for each in finding(claim(**said)).habits] == ["auth_method", "pkce", "scope_separator"]
    assert finding(claim(**said, token_endpoint="https://old.example.com/token")).habits == []


def test_only_a_confirmed_entry_that_everybody_contradicts_fails_the_audit() -> None:
    wrong = [claim(token_endpoint="https://old.example.com/token")]
    for members, claims, alone in (
        ({}, wrong, ["example"]),
        ({"verification": "unconfirmed"}, wrong, []),
        ({}, [*wrong, claim(source="two")], []),
        ({}, [], []),
        ({"retires": [{**END, "field": "token_endpoint", "value": "https://old.example.com/token"}]}, wrong, []),
        ({"retires": [{**END, "field": "token_endpoint", "value": "https://id.example.com/0"}]}, wrong, ["example"]),
    ):
        templates = {"example": template(**members)}
        assert alone_of(templates, compare(templates, claims)) == alone


def test_an_entry_that_nobody_has_looked_at_for_a_year_is_named() -> None:
    today = date(2027, 11, 26)
    for reviewed, stale in ((None, True), ("2026-11-25", True), ("2026-11-26", False), ("2027-11-26", False)):
        assert stale_of({"example": template(reviewed=reviewed)}, today=today) == (["example"] if stale else [])


def test_what_is_kept_names_fields_and_packages_but_no_values_of_theirs() -> None:
    found = {"example": finding(claim(pkce="absent"), claim(source="two", token_endpoint="https://old.example.com/t"))}
    kept = result_of({"one": "1.0"}, found, {})
    assert kept["packages"] == {"one": "1.0"}
    assert kept["entries"] == {"example": {"agree": ["one"], "differ": {"pkce": ["one"], "token_endpoint": ["two"]}}}
    assert "old.example.com" not in json.dumps(kept)
    assert "two 'https://old.example.com/t'" in report(found)
    assert summary(found).startswith("1 entries: 0 with two or more agreeing packages, 1 with one")


# APIs

API = {"base_url": "https://{site}.example.com/v2", "sources": 2, "verification": "confirmed"}
SITE = {"site": {"title": "Site", "source": "user", "pattern": "[a-z]+"}}


def of_api(*facts: dict[str, str], **members: object) -> ApiFinding:
    entry = template(app_type="apikey", authorization_endpoint="", token_endpoint="", variables=SITE, api=API | members)
    said = [Claim(f"p{n}", "example-api-key", {k: (v,) for k, v in each.items()}) for n, each in enumerate(facts)]
    return compare_apis({"example": entry}, said)["example"]


@pytest.mark.parametrize(
    ("theirs", "agrees"),
    [
        ({"api_base": "https://{x}.example.com"}, True),
        ({"api_base": "https://acme.example.com/v2/things"}, True),
        ({"api_base": "https://acme.example.com/v3"}, False),
        ({"api_base": "https://acme.example.org/v2"}, False),
        ({"api_call": "https://acme.example.com/v2/me"}, True),
    ],
)
def test_a_base_is_the_same_where_one_goes_on_from_the_other(theirs: dict[str, str], agrees: bool) -> None:
    found = of_api(theirs)
    assert (bool(found.agreeing), bool(found.differing)) == (agrees, not agrees)


def test_what_says_nothing_of_a_base_is_not_against_it() -> None:
    assert of_api({"api_base": "{x}"}, {"api_call": "https://other.example.com/me"}) == ApiFinding()


def test_where_a_key_goes_is_compared_where_the_base_agrees() -> None:
    base = {"api_base": "https://{x}.example.com"}
    (difference,) = of_api({**base, "placement": "query key"}, {**base, "placement": "header authorization"}).differing
    assert (difference.field, difference.source, difference.theirs) == ("api.credential", "p0", "query key")


def test_only_a_confirmed_base_that_everybody_has_at_another_owners_domain_fails_the_audit() -> None:
    foreign, own = {"api_base": "https://api.example.org"}, {"api_base": "https://api.example.com/v3"}
    for facts, members, alone in (
        ([foreign], {}, ["example"]),
        ([foreign], {"verification": "unconfirmed"}, []),
        ([own], {}, []),
        ([foreign, {"api_base": "https://{x}.example.com/v2"}], {}, []),
    ):
        assert apis_alone_of({"example": template(api=API | members)}, {"example": of_api(*facts)}) == alone


# The table


def test_the_table_of_providers_is_up_to_date() -> None:
    kept = json.loads(provider_table.RESULT.read_text())
    written = provider_table.PAGE.read_text()
    assert written == provider_table.page(load_catalogue(), kept), "run `make catalog-table`"


def test_a_row_says_what_is_unusual_about_a_provider() -> None:
    entry = template(
        scope_separator=",",
        token_request_format="json",
        default_expires_in="never",
        refresh_token_rotation="rotates",
        refresh_token_idle_seconds=86400,
        refresh_token_max_seconds=365 * 86400,
        retires=[{"on": "2030-01-01", "page": "https://example.com/end"}],
        replaced_by="other",
        authorization_params={"shop": "{shop}"},
        variables={"shop": {"title": "Shop", "source": "user"}},
    )
    audit = {"date": "2026-01-01", "packages": {"one": "1"}, "entries": {"example": {"agree": ["one"], "differ": {}}}}
    text = provider_table.page(MappingProxyType({"example": entry}), audit)
    row = next(line for line in text.splitlines() if "`example`" in line)
    assert "asks for shop; scopes joined by `,`; token request as JSON; authorization adds shop; " in row
    assert "tokens without a lifetime do not expire" in row
    assert "rotate, die after 1 day unused, die 365 days after the consent" in row
    assert "**ends on 2030-01-01, see `other`**" in row
    assert row.endswith("| confirmed (2) | never | 1: one |")
    key = template(
        id="key",
        app_type="apikey",
        authorization_endpoint="",
        token_endpoint="",
        fields={"user": {"title": "User"}, "password": {"title": "Password"}},
        variables=SITE,
        api={**API, "credential": {"in": "basic", "username": "{user}", "password": "{password}"}},
    )
    text = provider_table.page({"key": key}, {**audit, "apis": {"key": {"agree": ["one"]}}})
    assert "| User, Password, Site | HTTP Basic | `https://{site}.example.com/v2` (confirmed; 1 package) |" in text
    assert "1 for API keys. 1 know where their provider's API is" in " ".join(text.split())
    assert "not audited yet" in provider_table.page({"example": entry}, {**audit, "entries": {}})
