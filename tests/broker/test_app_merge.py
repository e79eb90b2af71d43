"""What an app's definition becomes: what is sent, what is published, what is stored, and the result, field by field."""

from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from evergrant.broker.apps.definition import PLAIN_FIELDS, SECRET_FIELDS, AppDefinition, CompleteDefinition
from evergrant.broker.apps.merge import merge
from evergrant.db import OutboundApp
from evergrant.oauth2.protected_resource import Discovered
from evergrant.oauth2.registration import ServerMetadata

HERE, ELSEWHERE = "https://idp.example.com", "https://elsewhere.example.com"
ENDS = datetime(2030, 1, 1, tzinfo=UTC)
NOTHING = CompleteDefinition(id="app", name="")
"""What there is of an app before it is created."""
PUBLISHED = Discovered(
    ServerMetadata(
        issuer="published",
        authorization_endpoint="published",
        token_endpoint="published",
        revocation_endpoint="published",
        userinfo_endpoint="published",
        jwks_uri="published",
        registration_endpoint="published",
    ),
    resource="published",
    scopes=("published",),
)
EMPTIED = {
    "description": "stored",
    "logo": "stored",
    "client_id": "stored",
    "discovery_url": "stored",
    "authorization_url": "stored",
    "authorization_url_params": [["stored", ""]],
    "token_url": "stored",
    "token_url_params": [["stored", ""]],
    "revocation_url": "stored",
    "default_scopes": ["stored"],
    "default_redirect_url": "stored",
    "callback_domain": "stored",
    "pkce": False,
    "access_type": "online",
    "prompt": ["login"],
}
"""Fields of which an update that leaves them out leaves nothing."""
KEPT = {
    "use_dcr": True,
    "dcr_url": "stored",
    "app_type": "oauth",
    "tenant_id": "stored",
    "template_id": "stored",
    "variables": {"shop": "stored"},
    "issuer": "stored",
    "userinfo_url": "stored",
    "jwks_url": "stored",
    "token_endpoint_auth_method": "client_secret_basic",
    "resource": "stored",
    "scope_descriptions": {"stored": ""},
    "scope_translations": {"de": {"stored": ""}},
    "skip_consent_page": True,
    "require_confirmation": True,
    "revoke_replaced": True,
    "refresh_policy": "on_demand",
    "refresh_token_idle_seconds": 4_000,
    "own_callback": False,
    "api_base_url": "stored",
    "api_further": {"stored": "stored"},
    "api_headers": {"Stored": "stored"},
    "api_forbidden": ["GET /stored"],
}
"""Fields that stay as they are stored when an update leaves them out."""


def sent(**values: Any) -> AppDefinition:
    return AppDefinition(**{"id": "app", "name": "App", **values})


def stored(**values: Any) -> CompleteDefinition:
    return CompleteDefinition(**{"id": "app", "name": "App", **values})


def test_the_tables_here_have_every_field_that_an_operator_may_leave_out() -> None:
    optional = {field.name for field in fields(AppDefinition)} - {"id", "name", *SECRET_FIELDS}
    assert optional == {*EMPTIED, *KEPT}


def test_each_column_of_an_app_is_defined_or_kept_by_evergrant_itself() -> None:
    own = {
        "project_id",
        "callback_id",
        "client_secret_at",
        "created_at",
        "updated_at",
        "unhealthy_since",
        "unhealthy_reason",
        "restored_pace",
    }
    assert {column.key for column in OutboundApp.__table__.columns} - own == {*PLAIN_FIELDS, *SECRET_FIELDS}


def test_a_new_app_of_which_only_the_name_is_said_has_the_columns_own_defaults() -> None:
    created = merge(NOTHING, AppDefinition(name="App"))
    columns = {column.key: column.default for column in OutboundApp.__table__.columns}
    defaults = {
        name: default.arg(None) if default.is_callable else default.arg
        for name in PLAIN_FIELDS
        if (default := columns[name]) is not None
    }
    assert {name: getattr(created, name) for name in defaults} == defaults
    assert (created.id, created.name, created.client_secret) == ("app", "App", None)


def test_a_new_app_keeps_the_id_that_it_was_given_where_the_operator_says_none() -> None:
    assert merge(stored(id="app-generated", name=""), AppDefinition(name="App")).id == "app-generated"


@pytest.mark.parametrize("field", EMPTIED)
def test_an_update_that_leaves_a_field_out_empties_it(field: str) -> None:
    merged = merge(stored(**{field: EMPTIED[field]}), sent())
    assert getattr(merged, field) == getattr(merge(NOTHING, sent()), field)


@pytest.mark.parametrize("field", KEPT)
def test_an_update_that_leaves_out_a_field_that_not_every_sdk_knows_keeps_it(field: str) -> None:
    assert getattr(merge(stored(**{field: KEPT[field]}), sent()), field) == KEPT[field]


@pytest.mark.parametrize("field", [*EMPTIED, *KEPT])
@pytest.mark.parametrize("before", [NOTHING, stored(issuer="old", scope_descriptions={"old": ""})], ids=["new", "old"])
def test_what_is_sent_counts_before_what_is_published_or_stored(field: str, before: CompleteDefinition) -> None:
    value = {**EMPTIED, **KEPT}[field]
    assert getattr(merge(before, sent(**{field: value}), PUBLISHED), field) == value


@pytest.mark.parametrize(
    ("field", "empty"),
    [
        ("tenant_id", ""),
        ("template_id", ""),
        ("variables", {}),
        ("issuer", ""),
        ("userinfo_url", ""),
        ("jwks_url", ""),
        ("resource", ""),
        ("scope_descriptions", {}),
        ("skip_consent_page", False),
        ("require_confirmation", False),
        ("revoke_replaced", False),
        ("use_dcr", False),
        ("refresh_token_idle_seconds", 0),
    ],
)
def test_an_empty_value_empties_even_what_is_published(field: str, empty: Any) -> None:
    assert getattr(merge(stored(**{field: KEPT[field]}), sent(**{field: empty}), PUBLISHED), field) == empty


@pytest.mark.parametrize("field", ["token_endpoint_auth_method", "refresh_policy"])
def test_what_no_app_can_do_without_cannot_be_emptied(field: str) -> None:
    assert getattr(merge(stored(**{field: KEPT[field]}), sent(**{field: ""})), field) == KEPT[field]
    assert getattr(merge(NOTHING, sent(**{field: ""})), field) == getattr(merge(NOTHING, sent()), field)


@pytest.mark.parametrize(
    ("field", "left_out", "published"),
    [
        ("authorization_url", "", "published"),
        ("token_url", "", "published"),
        ("revocation_url", "", "published"),
        ("default_scopes", (), ["published"]),
        ("issuer", None, "published"),
        ("userinfo_url", None, "published"),
        ("jwks_url", None, "published"),
        ("resource", None, "published"),
    ],
)
def test_what_is_left_out_is_what_the_provider_publishes_whatever_is_stored(
    field: str, left_out: Any, published: Any
) -> None:
    before = {**EMPTIED, **KEPT}[field]
    assert getattr(merge(NOTHING, sent(**{field: left_out}), PUBLISHED), field) == published
    assert getattr(merge(stored(**{field: before}), sent(**{field: left_out}), PUBLISHED), field) == published


@pytest.mark.parametrize("flag", [True, False])
def test_what_only_a_server_can_promise_is_what_it_promises_now(flag: bool) -> None:
    before = stored(client_id_metadata=not flag, iss_required=not flag)
    server = ServerMetadata(
        client_id_metadata_document_supported=flag, authorization_response_iss_parameter_supported=flag
    )
    merged = merge(before, sent(), Discovered(server))
    assert (merged.client_id_metadata, merged.iss_required) == (flag, flag)
    assert not merge(stored(client_id_metadata=True, iss_required=True), sent()).client_id_metadata


@pytest.mark.parametrize(
    ("before", "now", "kept"),
    [(HERE, HERE, True), ("", "", True), (HERE, ELSEWHERE, False), (HERE, "", False), ("", HERE, False)],
)
@pytest.mark.parametrize("field", ["resource", "dcr_url"])
def test_another_discovery_url_leaves_nothing_of_the_old_resource_and_registration(
    field: str, before: str, now: str, kept: bool
) -> None:
    merged = merge(stored(discovery_url=before, **{field: "stored"}), sent(discovery_url=now))
    assert getattr(merged, field) == ("stored" if kept else "")


@pytest.mark.parametrize("field", ["issuer", "userinfo_url", "jwks_url"])
def test_what_the_new_server_does_not_publish_stays(field: str) -> None:
    assert (
        getattr(merge(stored(discovery_url=HERE, **{field: "stored"}), sent(discovery_url=ELSEWHERE)), field)
        == "stored"
    )


@pytest.mark.parametrize(
    ("use_dcr", "was", "given", "published", "result"),
    [
        # Whether evergrant registers decides whether the published registration endpoint is taken.
        (True, False, None, "published", "published"),
        (True, True, None, "published", "published"),
        (None, True, None, "published", "published"),
        (None, False, None, "published", "stored"),
        (False, True, None, "published", "stored"),
        (True, True, None, "", "stored"),
        # What is given counts; an empty one is looked up, but the stored one is gone.
        (True, True, "given", "published", "given"),
        (False, False, "given", "published", "given"),
        (True, True, "", "published", "published"),
        (True, True, "", "", ""),
        (False, True, "", "published", ""),
    ],
)
def test_where_to_register(use_dcr: bool | None, was: bool, given: str | None, published: str, result: str) -> None:
    found = Discovered(ServerMetadata(registration_endpoint=published))
    merged = merge(stored(use_dcr=was, dcr_url="stored"), sent(use_dcr=use_dcr, dcr_url=given), found)
    assert merged.dcr_url == result
    assert merged.use_dcr is (was if use_dcr is None else use_dcr)


REGISTERED = stored(
    use_dcr=True,
    client_id="made",
    token_url=f"{HERE}/token",
    dcr_url=f"{HERE}/register",
    registered_redirect_uri="https://evergrant.example.com/callback",
    client_secret_expires_at=ENDS,
)
"""An app that evergrant registered at its server by itself."""
REMOVED, KEPT_SECRET = "", None
"""What becomes of the stored secret."""


@pytest.mark.parametrize(
    ("change", "client_id", "secret", "registered"),
    [
        # It stays for whoever sends it back, and for SDKs that never saw it.
        ({}, "made", KEPT_SECRET, True),
        ({"client_id": "made"}, "made", KEPT_SECRET, True),
        ({"client_id": "made", "use_dcr": True}, "made", KEPT_SECRET, True),
        ({"dcr_url": f"{HERE}/register"}, "made", KEPT_SECRET, True),
        ({"client_secret": SecretStr("given")}, "made", "given", True),
        # The operator's own client takes its place, and its secret goes.
        ({"client_id": "theirs"}, "theirs", REMOVED, False),
        ({"client_id": "theirs", "client_secret": SecretStr("given")}, "theirs", "given", False),
        ({"client_id": "theirs", "use_dcr": False}, "theirs", REMOVED, False),
        # Without registering, the client that there is becomes the operator's.
        ({"client_id": "made", "use_dcr": False}, "made", KEPT_SECRET, False),
        ({"use_dcr": False}, "", REMOVED, False),
        # At another server it is worth nothing, and its secret must not get there.
        ({"token_url": f"{ELSEWHERE}/token"}, "", REMOVED, False),
        ({"client_id": "made", "token_url": f"{ELSEWHERE}/token"}, "", REMOVED, False),
        ({"client_id": "made", "dcr_url": f"{ELSEWHERE}/register"}, "", REMOVED, False),
        ({"client_id": "made", "use_dcr": False, "token_url": f"{ELSEWHERE}/token"}, "made", REMOVED, False),
        ({"client_id": "theirs", "token_url": f"{ELSEWHERE}/token"}, "theirs", REMOVED, False),
    ],
)
def test_a_registration_that_evergrant_made_stays_where_it_still_counts(
    change: dict[str, Any], client_id: str, secret: str | None, registered: bool
) -> None:
    merged = merge(REGISTERED, sent(**{"token_url": f"{HERE}/token", **change}))
    found = merged.client_secret.get_secret_value() if merged.client_secret is not None else None
    assert (merged.client_id, found) == (client_id, secret)
    assert merged.registered_redirect_uri == (REGISTERED.registered_redirect_uri if registered else "")
    assert merged.client_secret_expires_at == (ENDS if registered else None)


@pytest.mark.parametrize("use_dcr", [True, False, None])
@pytest.mark.parametrize("token_url", [f"{HERE}/token", f"{ELSEWHERE}/token"])
def test_a_client_that_the_operator_entered_is_the_one_that_is_sent_and_its_secret_stays(
    token_url: str, use_dcr: bool | None
) -> None:
    before = stored(client_id="theirs", token_url=f"{HERE}/token", use_dcr=True)
    for client_id in ("theirs", "another", ""):
        merged = merge(before, sent(client_id=client_id, token_url=token_url, use_dcr=use_dcr))
        assert (merged.client_id, merged.client_secret) == (client_id, None)


@pytest.mark.parametrize("given", ["new", ""])
def test_a_secret_that_is_sent_replaces_or_removes_the_stored_one(given: str) -> None:
    merged = merge(stored(client_id="theirs"), sent(client_id="theirs", client_secret=SecretStr(given)))
    assert merged.client_secret == SecretStr(given)


@pytest.mark.parametrize(
    ("before", "said", "result", "secret"),
    [
        (NOTHING, "apikey", "apikey", REMOVED),
        (stored(app_type="apikey"), None, "apikey", REMOVED),
        (stored(app_type="oauth"), "apikey", "apikey", REMOVED),
        (stored(app_type="apikey"), "oauth", "oauth", KEPT_SECRET),
        (stored(app_type="oauth"), None, "oauth", KEPT_SECRET),
        (NOTHING, None, "oauth", KEPT_SECRET),
    ],
)
def test_an_app_that_holds_api_keys_has_no_client_secret(
    before: CompleteDefinition, said: str | None, result: str, secret: str | None
) -> None:
    merged = merge(before, sent(app_type=said))
    found = merged.client_secret.get_secret_value() if merged.client_secret is not None else None
    assert (merged.app_type, found) == (result, secret)


@pytest.mark.parametrize(
    ("given", "before", "supported", "result"),
    [
        ("none", "client_secret_basic", ("client_secret_post",), "none"),
        (None, "client_secret_basic", ("client_secret_post",), "client_secret_basic"),
        ("", "client_secret_basic", ("client_secret_post",), "client_secret_basic"),
        (None, "", (), "client_secret_post"),
        (None, "", ("client_secret_basic", "client_secret_post"), "client_secret_post"),
        (None, "", ("none", "client_secret_basic"), "client_secret_basic"),
        (None, "", ("private_key_jwt", "none"), "none"),
        (None, "", ("private_key_jwt", "client_secret_jwt"), "client_secret_post"),
    ],
)
def test_how_the_client_authenticates(given: str | None, before: str, supported: tuple[str, ...], result: str) -> None:
    found = Discovered(ServerMetadata(token_endpoint_auth_methods_supported=supported))
    merged = merge(stored(token_endpoint_auth_method=before), sent(token_endpoint_auth_method=given), found)
    assert merged.token_endpoint_auth_method == result


@pytest.mark.parametrize(
    ("template_id", "variables", "result"),
    [
        (None, None, {"shop": "ours"}),
        ("", None, {"shop": "ours"}),
        ("another", None, {"shop": "ours"}),
        (None, {}, {}),
        (None, {"shop": ""}, {}),
        (None, {"region": "eu", "shop": ""}, {"region": "eu"}),
    ],
)
def test_stored_variables_stay_until_others_are_sent_whatever_becomes_of_the_template(
    template_id: str | None, variables: dict[str, str] | None, result: dict[str, str]
) -> None:
    before = stored(template_id="stored", variables={"shop": "ours"})
    merged = merge(before, sent(template_id=template_id, variables=variables))
    assert merged.variables == result
    assert merged.template_id == ("stored" if template_id is None else template_id)


def test_a_scope_that_a_resource_names_and_nobody_could_ask_for_is_left_out() -> None:
    assert merge(NOTHING, sent(), replace(PUBLISHED, scopes=("read", 'bad"', "two words"))).default_scopes == ["read"]


def test_what_a_database_returns_in_another_form_is_put_into_that() -> None:
    new = sent(
        callback_domain="Connect.Example.COM",
        prompt=("login",),
        default_scopes=("read",),
        token_url_params=(("a", "b"),),
        authorization_url_params=(("c", "d"),),
    )
    merged = merge(NOTHING, new)
    assert merged.callback_domain == "connect.example.com"
    assert (merged.prompt, merged.default_scopes) == (["login"], ["read"])
    assert (merged.token_url_params, merged.authorization_url_params) == ([["a", "b"]], [["c", "d"]])
    assert merge(merged, new) == merged
