"""Scopes compared by what they mean and not by how a provider writes them."""

import pytest

from evergrant.errors import UpstreamRejected
from evergrant.oauth2.quirks import Quirks
from evergrant.oauth2.scopes import NO_PROOFS, Proofs, ScopeWords, words_for

LONG = "https://www.googleapis.com/auth/userinfo.email"
GOOGLE = ScopeWords({"email": [LONG]}, any_prefix=False)
MICROSOFT = ScopeWords({"*": ["https://graph.microsoft.com/*"]}, {"*": [".default"]}, any_prefix=False)
GITHUB = ScopeWords({}, {"user": ["user:email"], "admin:*": ["write:*"], "write:*": ["read:*"]})
PLAIN = ScopeWords()

SAME = [
    (PLAIN, "mail.read", "Mail.Read"),
    (PLAIN, "https://api.example.com/read", "read"),
    (PLAIN, "read", "https://api.example.com/read"),
    (PLAIN, "https://mail.example.com/", "https://mail.example.com"),
    (GOOGLE, "email", LONG),
    (GOOGLE, LONG, "email"),
    (GOOGLE, "Email", LONG.upper()),
    (MICROSOFT, "https://graph.microsoft.com/user.read", "User.Read"),
    (MICROSOFT, "User.Read", "https://graph.microsoft.com/User.Read"),
    (MICROSOFT, "https://graph.microsoft.com/.default", "User.Read"),
    (GITHUB, "user:email", "user"),
    (GITHUB, "read:org", "admin:org"),
]
DIFFERENT = [
    (PLAIN, "write", "read"),
    (PLAIN, "https://api.example.com/read", "https://other.example.com/read"),
    (PLAIN, "read", "read.all"),
    (PLAIN, "calendar", "https://www.googleapis.com/auth/calendar.readonly"),
    (GOOGLE, "profile", LONG),
    (GOOGLE, "https://other.example.com/email", "email"),
    (MICROSOFT, "https://outlook.office.com/Mail.Read", "Mail.Read"),
    (GITHUB, "user", "user:email"),
    (GITHUB, "admin:org", "write:org"),
    (GITHUB, "read:packages", "admin:org"),
]


@pytest.mark.parametrize(("words", "wanted", "held"), SAME)
def test_other_spellings_and_greater_scopes_have_it(words: ScopeWords, wanted: str, held: str) -> None:
    assert words.missing([wanted], [held]) == []


@pytest.mark.parametrize(("words", "wanted", "held"), DIFFERENT)
def test_another_scope_does_not(words: ScopeWords, wanted: str, held: str) -> None:
    assert words.missing([wanted], [held]) == [wanted]


@pytest.mark.parametrize(
    "scope", ["offline_access", "offline.access", "OFFLINE_ACCESS", "offline", "refresh_token", "wl.offline_access"]
)
def test_a_refresh_token_proves_a_scope_that_asks_for_one(scope: str) -> None:
    assert PLAIN.missing([scope], ["read"], Proofs(refresh_token=True)) == []
    assert PLAIN.missing([scope], ["read"], NO_PROOFS) == [scope]


@pytest.mark.parametrize("scope", ["offline_files", "offlineread", "tokens", "refresh_tokens.write"])
def test_it_proves_no_other(scope: str) -> None:
    assert PLAIN.missing([scope], ["read"], Proofs(refresh_token=True)) == [scope]


def test_an_id_token_proves_openid() -> None:
    assert PLAIN.missing(["openid"], ["read"], Proofs(id_token=True)) == []
    assert PLAIN.missing(["openid"], ["read"], NO_PROOFS) == ["openid"]


def test_a_short_name_stands_for_one_of_the_long_ones_only() -> None:
    asked = ["https://one.example.com/read", "https://two.example.com/read"]
    assert PLAIN.granted(asked, ["read"], NO_PROOFS) == ["read"]


def test_what_was_asked_for_comes_first_and_in_the_same_words() -> None:
    asked = ["openid", "offline_access", "user.read", "mail.send"]
    answered = ["profile", "openid", "User.Read", "email"]
    assert MICROSOFT.granted(asked, answered, Proofs(refresh_token=True)) == [
        "openid",
        "offline_access",
        "user.read",
        "profile",
        "email",
    ]


def test_a_scope_is_the_same_with_its_variables_filled_in() -> None:
    words = ScopeWords(values={"shop": "acme"})
    written, filled = "https://{shop}.example.com/read", "https://acme.example.com/read"
    assert (words.missing([written], [filled]), words.missing([filled], [written])) == ([], [])
    assert words.granted([written], [filled], NO_PROOFS) == [filled]
    assert words.missing([written], ["https://other.example.com/write"]) == [written]
    assert PLAIN.missing(["a{b}"], ["a{b}"]) == []


def test_the_words_for_a_scope_are_those_of_its_written_form() -> None:
    words = {"https://{shop}.example.com/read": "Read the shop", "read": "Read"}
    assert words_for("https://acme.example.com/read", words) == "Read the shop"
    assert words_for("https://{shop}.example.com/read", words) == "Read the shop"
    assert words_for("https://evil.example/acme.example.com/read", words) == ""
    assert words_for("read", words) == "Read"


def test_a_scope_whose_variable_has_no_value_is_not_sent() -> None:
    quirks = Quirks(values={"region": "eu"}, unset=("shop",), scope_separator=",")
    assert quirks.scope(["{region}/read", "{other}/read"], "Example") == "eu/read,{other}/read"
    with pytest.raises(UpstreamRejected, match="Example needs a value for shop"):
        quirks.scope(["{shop}/read"], "Example")
