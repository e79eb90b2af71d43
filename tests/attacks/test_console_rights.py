"""The console's forms and sign-in: nobody gets more than they were given by what is left out, odd, old or typed."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from evergrant.operator_rules import is_allowed, role_of
from evergrant.web.app import create_app
from tests.infra.console import SAME_ORIGIN, Operator, cookie_of, words_of
from tests.infra.databases import settings_for
from tests.infra.installation import APP_ID, CLIENT_SECRET, Installation, new_project
from tests.infra.issuer import AUDIENCE, Issuer
from tests.infra.page_forms import form_of
from tests.infra.rows import rows
from tests.infra.scripted import serving
from tests.infra.serving import LiveApp
from tests.infra.visits import Visitor

BOSS = "boss@example.com"
ODD_FORM = {**SAME_ORIGIN, "Content-Type": "multipart/form-data; boundary=B; charset=unicode_escape"}


@pytest.fixture
def operator(here: Installation) -> Iterator[Operator]:
    signed_in = Operator(here.settings, here.backend.project_id)
    yield signed_in
    signed_in.http.close()


def in_parts(**fields: str) -> bytes:
    """Return a form whose text, decoded as its charset says, is half a character."""
    parts = [f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n' for name, text in fields.items()]
    return "".join([*parts, "--B--\r\n"]).encode()


def test_a_browser_that_an_administrator_has_left_open_sends_nobodys_tokens_elsewhere(here: Installation) -> None:
    app_id = here.backend.new_app(here.provider.registration)
    here.connected("mover", appId=app_id)
    old = Operator(here.settings, here.backend.project_id, age=timedelta(minutes=16))
    new = Operator(here.settings, here.backend.project_id)
    for operator, status in ((old, 403), (new, 303)):
        fields = form_of(operator.get(f"apps/{app_id}").text, f"/console/{operator.project_id}/apps/{app_id}")
        moved = {"clientSecret": CLIENT_SECRET, "tokenUrl": "https://elsewhere.example/token", "discoveryUrl": ""}
        answer = operator.post(f"apps/{app_id}", {**fields, **moved, "do": "save"})
        assert answer.status_code == status, words_of(answer)
        assert status == 303 or "You signed in more than 15 minutes ago" in words_of(answer)
        operator.http.close()


def test_nobody_comes_in_or_gets_a_role_by_an_address_that_they_typed_themselves() -> None:
    typed = {"sub": "1", "email": BOSS, "groups": ["staff"]}
    for claims in (typed, {**typed, "email_verified": False}, {**typed, "email": [BOSS], "email_verified": True}):
        assert not is_allowed([f"email={BOSS}", BOSS, "@example.com"], claims)
        assert role_of([f"email:{BOSS}=admin"], claims) == "viewer"
    vouched = {**typed, "email": "Boss@Example.com", "email_verified": True}
    assert is_allowed([f"email={BOSS}"], vouched)
    assert role_of([f"email:{BOSS}=admin"], vouched) == "admin"
    kelvin = {"sub": "2", "email": "\u212aate@example.com", "email_verified": True}
    assert not is_allowed(["kate@example.com"], kelvin)


def test_what_userinfo_vouches_for_is_its_own_address_and_no_other(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    request.param = "sqlite"
    with settings_for(request, tmp_path_factory, log_level="error") as plain, serving(Issuer()) as idp:
        metadata = idp.routes["/.well-known/openid-configuration"]
        idp.routes["/.well-known/openid-configuration"] = lambda call: {
            **metadata(call),
            "userinfo_endpoint": f"{idp.url}/userinfo",
        }
        oidc = {"console_oidc_issuer": idp.url, "console_oidc_client_id": "console", "console_oidc_allow": (BOSS,)}
        settings = plain.model_copy(update=oidc)
        new_project(settings)
        with LiveApp(create_app(settings), port=urlsplit(settings.public_url).port or 0):
            for vouched_for, status in (("mallory@elsewhere.example", 403), (BOSS, 303)):
                idp.routes["/userinfo"] = {"sub": "mallory", "email": vouched_for, "email_verified": True}
                with httpx2.Client(base_url=settings.public_url, trust_env=False) as http:
                    away = parse_qs(urlsplit(http.get("/console/oidc/start").headers["location"]).query)
                    token = idp.session("mallory", aud="console", nonce=away["nonce"][0], email=BOSS)
                    idp.routes["/token"] = {"access_token": "a", "token_type": "Bearer", "id_token": token}
                    back = http.get("/console/oidc/callback", params={"code": "c", "state": away["state"][0]})
                    assert back.status_code == status, words_of(back)


def test_a_form_in_an_odd_encoding_is_refused_and_no_bug(here: Installation, operator: Operator) -> None:
    """A form of parts says by itself how it is encoded. Strangers send some of these."""
    project = here.backend.project_id
    sent: dict[str, dict[str, str]] = {
        "/console/sign-in": {"project": "a\\ud800b", "key": "x"},
        "/v1/outbound/oauth/callback": {"state": "a\\ud800b"},
        f"/embed/{project}/enter": {"code": "a\\ud800b"},
        f"/console/{project}/connections/export": {"q": "a\\ud800b"},
        f"/console/{project}/keys/new": {"name": "a", "a\\ud800b": "x"},
    }
    for path, fields in sent.items():
        answer = operator.http.post(path, content=in_parts(**fields), headers=ODD_FORM)
        assert answer.status_code == 400, (path, answer.status_code)
    control = operator.http.post(
        f"/console/{project}/connections/export", content=in_parts(q="a\\u00e9"), headers=ODD_FORM
    )
    assert control.status_code == 200


@pytest.mark.parametrize(
    "rows_of_claims",
    [
        {"claim": ["", "", ""], "values": ["sales", "", ""]},
        {"claim": ["roles"], "values": ["sales", "support"]},
        {"claim": ["roles", "roles"], "values": ["sales", "support"]},
    ],
)
def test_a_policy_that_is_filled_in_by_half_lets_nobody_in(
    here: Installation, operator: Operator, rows_of_claims: dict[str, Any]
) -> None:
    before = len(rows(here.settings, "access_policies"))
    answer = operator.post("policies/new", {"app": APP_ID, "action": "fetch", **rows_of_claims})
    assert answer.status_code == 400
    assert len(rows(here.settings, "access_policies")) == before


def test_text_without_end_is_taken_by_no_form(here: Installation, operator: Operator) -> None:
    long, many = "x" * 100_000, "\n".join(["10.0.0.0/8"] * 101)
    listed = re.findall(rf"/console/{operator.project_id}/keys/([\w-]+)\"", operator.get("keys").text)
    key_id = next(one for one in listed if one != "new")
    for path, fields in (
        (f"keys/{key_id}", {"name": "a", "description": long}),
        (f"keys/{key_id}", {"name": "a", "networks": many}),
        ("policies/new", {"app": APP_ID, "action": "fetch", "scopes": long}),
        ("policies/new", {"app": APP_ID, "action": "fetch", "claim": "roles", "values": long}),
        ("policies/new", {"app": APP_ID, "action": "fetch", "claim": "roles", "values": "a," * 101}),
        ("policies/new", {"app": APP_ID, "action": "fetch", "keys": [f"k{n}" for n in range(101)]}),
    ):
        assert operator.post(path, fields).status_code == 400, (path, list(fields))
    for field in ("app", "tenant", "q"):
        assert operator.post("connections/export", {field: long}).status_code == 200, field


def test_a_large_record_that_a_backend_causes_fills_no_page_of_the_log(here: Installation, operator: Operator) -> None:
    policy = {"appId": APP_ID, "action": "connect", "claims": {"roles": [f"{n:0>1000}" for n in range(100)]}}
    made = here.backend.http.post("/v1/mgmt/outbound/policies", json=policy)
    assert made.status_code == 200, made.text
    page = operator.get("audit?action=policy.created")
    here.backend.http.delete("/v1/mgmt/outbound/policies", params={"id": made.json()["policy"]["id"]})
    assert "characters; export them" in page.text
    assert len(page.content) < 50_000


def test_whoever_ends_a_session_of_all_projects_is_in_the_log(here: Installation, operator: Operator) -> None:
    name, value = cookie_of(here.settings, role="viewer")
    with httpx2.Client(base_url=here.url, cookies={name: value}, trust_env=False) as other:
        found = [row for row in rows(here.settings, "console_sessions") if row["operator"] == "the viewer"]
        session_id = found[-1]["id"]
        assert operator.post(f"settings/operators/{session_id}/end").status_code == 303
        assert other.get(f"/console/{operator.project_id}").status_code == 303
    ended = [row for row in rows(here.settings, "audit_events") if row["action"] == "console.signed_out"]
    assert any(session_id in str(row["data"]) and "the admin" in row["actor"] for row in ended)


def test_an_origin_that_may_embed_says_nothing_else_in_the_policy(here: Installation, operator: Operator) -> None:
    for origin in ("https://*", "https://*.example.com", "https://a;script-src", "https://a,b.example", "https://ß.de"):
        answer = operator.post("settings", {"name": "A project", "embedOrigins": origin, "embeds": origin})
        assert answer.status_code == 400, origin
    assert here.backend.http.get(f"{here.url}/embed/{operator.project_id}/accounts").status_code == 404


def test_a_user_whose_issuer_is_trusted_no_longer_visits_nothing_any_more(here: Installation) -> None:
    with serving(Issuer()) as issuer:
        trusted = {"issuer": issuer.url, "audience": AUDIENCE}
        made = here.backend.http.post("/v1/mgmt/trustedissuer", json=trusted).json()
        with httpx2.Client(base_url=here.url, trust_env=False) as user:
            bearer = {"Authorization": f"Bearer {here.backend.project_id}:{issuer.access('visitor')}"}
            asked = user.post("/v1/mgmt/outbound/accounts/session", json={}, headers=bearer)
        assert asked.status_code == 200, asked.text
        visitor = Visitor(here)
        assert visitor.open(asked.json()["url"]).status_code == 200
        removed = here.backend.http.delete("/v1/mgmt/trustedissuer", params={"id": made["trustedIssuer"]["id"]})
        assert removed.status_code == 200, removed.text
        assert visitor.open().status_code == 404
