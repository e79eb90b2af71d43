"""`outbound_application_by_token`: a user's or a machine's own access token instead of a management key."""

import pytest
from descope import AuthException

from tests.infra.installation import APP_ID, SCOPES, Backend
from tests.sdk.conftest import MakeClient, Served, Waiting, connect, refused


@pytest.fixture
def by_token(make_client: MakeClient) -> Waiting:
    """The calls of a client that has no management key."""
    calls: Waiting = make_client(management_key=None).mgmt.outbound_application_by_token
    return calls


def test_a_user_fetches_its_own_token(served: Served, by_token: Waiting, user: str) -> None:
    connect(served.backend, user)
    jwt = served.identity.access(user)
    fetched = by_token.fetch_token_by_scopes(jwt, APP_ID, user, SCOPES)["token"]
    assert fetched == by_token.fetch_token(jwt, APP_ID, user)["token"]
    assert fetched["accessToken"] == served.backend.token(user)["accessToken"]


def test_a_user_fetches_its_token_in_its_tenant(served: Served, by_token: Waiting, user: str) -> None:
    connect(served.backend, user, tenantId="acme")
    jwt = served.identity.access(user, tenant="acme")
    fetched = by_token.fetch_token(jwt, APP_ID, user, tenant_id="acme")["token"]
    assert (fetched["userId"], fetched["tenantId"]) == (user, "acme")


def test_a_machine_fetches_its_tenants_token(served: Served, by_token: Waiting, user: str) -> None:
    tenant = f"tenant-of-{user}"
    connect(served.backend, user, tenantId=tenant, tenantLevel=True)
    jwt = served.identity.machine(tenant)
    fetched = by_token.fetch_tenant_token_by_scopes(jwt, APP_ID, tenant, SCOPES)["token"]
    assert fetched == by_token.fetch_tenant_token(jwt, APP_ID, tenant)["token"]
    assert fetched["grantedBy"] == user


def test_nobody_fetches_what_is_somebody_elses(served: Served, by_token: Waiting, user: str) -> None:
    connect(served.backend, user)
    other = served.identity.access("mallory")
    refused(lambda: by_token.fetch_token(other, APP_ID, user), 403, "E011006")
    refused(lambda: by_token.fetch_token_by_scopes(other, APP_ID, user, SCOPES), 403, "E011006")
    refused(lambda: by_token.fetch_tenant_token(served.identity.machine("umbrella"), APP_ID, "acme"), 403, "E011006")
    refused(
        lambda: by_token.fetch_tenant_token_by_scopes(served.identity.access(user), APP_ID, "acme", SCOPES),
        403,
        "E011006",
    )


def test_a_token_without_the_scope_or_that_is_not_believed_is_refused(
    served: Served, by_token: Waiting, user: str
) -> None:
    connect(served.backend, user)
    refused(lambda: by_token.fetch_token(served.identity.session(user), APP_ID, user), 403, "E011006")
    expired = served.identity.access(user, exp=1)
    for bad in (expired, served.identity.access(user, aud="somebody-else"), "not-a-jwt"):
        refused(lambda token=bad: by_token.fetch_token(token, APP_ID, user), 401, "E011005")  # type: ignore[misc]  # a default binds the loop's value


def test_who_is_not_connected_is_a_404(served: Served, by_token: Waiting, user: str) -> None:
    refused(lambda: by_token.fetch_token(served.identity.access(user), APP_ID, user), 404, "E111504")


def test_an_empty_token_is_the_sdks_own_refusal(by_token: Waiting, user: str) -> None:
    with pytest.raises(AuthException, match="Inbound app token is required"):
        by_token.fetch_token("", APP_ID, user)


def test_a_management_key_in_the_same_client_changes_nothing(
    served: Served, make_client: MakeClient, backend: Backend, user: str
) -> None:
    connect(backend, user)
    client = make_client().mgmt
    assert client.outbound_application.fetch_token(APP_ID, user)["token"]
    refused(
        lambda: client.outbound_application_by_token.fetch_token(served.identity.access("mallory"), APP_ID, user),
        403,
        "E011006",
    )
