"""The commands about users: which issuers are trusted, and which policies there are."""

from evergrant.settings import Settings
from evergrant.web.app import create_app
from tests.cli.conftest import Evergrant
from tests.infra.installation import Backend
from tests.infra.issuer import AUDIENCE, Issuer
from tests.infra.scripted import serving
from tests.infra.serving import LiveApp


def test_issuers_are_added_listed_and_removed(evergrant: Evergrant, settings: Settings, project: str) -> None:
    rule = ("--machines-without-user", "--mcp", "--login-client-id", "us")
    with serving(Issuer()) as idp:
        added = evergrant(settings, "issuers", "add", idp.url, "--audience", AUDIENCE, "--tenant-claim", "org", *rule)
    assert added.code == 0, added.err
    (listed,) = evergrant(settings, "issuers", "list", "--json").json
    assert listed == {
        "id": added.out.split()[0],
        "issuer": idp.url,
        "audience": AUDIENCE,
        "userClaim": "sub",
        "tenantClaim": "org",
        "machinesWithoutUser": True,
        "mcp": True,
        "loginClientId": "us",
        "hasLoginClientSecret": False,
        "jwksUrl": f"{idp.url}/jwks",
    }
    assert evergrant(settings, "issuers", "remove", listed["id"]).code == 0
    assert evergrant(settings, "issuers", "list").out == "none\n"
    assert evergrant(settings, "issuers", "remove", listed["id"]).code == 1


def test_policies_are_added_listed_and_removed(evergrant: Evergrant, settings: Settings) -> None:
    made = evergrant(settings, "init", "--json").json
    with LiveApp(create_app(settings.model_copy(update={"refresher": False}))) as live:
        backend = Backend(live.url, made["projectId"], made["managementKey"])
        backend.create_app({"id": "contacts", "name": "Contacts"})
        backend.http.close()
    key = evergrant(settings, "keys", "create", "--name", "agents", "--json").json["id"]
    claim = ("--claim", "roles=sales,support", "--claim", "verified=true")
    levels = ("--level", "tenant", "--level", "user")
    added = evergrant(
        settings, "policies", "add", "contacts", "fetch", *claim, "--key", key, "--scope", "read", *levels
    )
    assert added.code == 0, added.err
    assert evergrant(settings, "policies", "list", "--json").json == [
        {
            "id": added.out.strip(),
            "app": "contacts",
            "action": "fetch",
            "claims": {"roles": ["sales", "support"], "verified": ["true"]},
            "keys": [key],
            "scopes": ["read"],
            "levels": ["user", "tenant"],
            "agents": [],
            "methods": [],
            "paths": [],
            "via": [],
            "effect": "allow",
        }
    ]
    assert evergrant(settings, "policies", "remove", added.out.strip()).code == 0
    assert evergrant(settings, "policies", "list").out == "none\n"
    assert evergrant(settings, "policies", "remove", added.out.strip()).code == 1


def test_a_policy_for_an_app_that_is_not_there_is_not_made(
    evergrant: Evergrant, settings: Settings, project: str
) -> None:
    refused = evergrant(settings, "policies", "add", "contacts", "fetch")
    assert (refused.code, refused.out) == (1, "")
    assert "no outbound app" in refused.err


def test_a_claim_is_written_with_its_values(evergrant: Evergrant, settings: Settings, project: str) -> None:
    refused = evergrant(settings, "policies", "add", "contacts", "fetch", "--claim", "roles")
    assert refused.code != 0
    assert "NAME=VALUE" in refused.err
