"""Keys at the console: made and shown once, replaced without a gap, disabled, and gone with what rests on them."""

import re
from datetime import timedelta
from html import unescape

import httpx2
import pytest
from playwright.sync_api import expect

from tests.infra.chromium import Person
from tests.infra.console import SAME_ORIGIN, Operator, words_of
from tests.infra.installation import Installation
from tests.infra.rows import rows
from tests.infra.waiting import wait_until

pytestmark = pytest.mark.parametrize("here", ["sqlite"], indirect=True)


def hidden(page: httpx2.Response, name: str = "once") -> str:
    """Return what a form carries along."""
    found = re.search(rf'name="{name}" value="([^"]*)"', page.text)
    assert found is not None, page.text
    return unescape(found[1])


def shown(page: httpx2.Response) -> str:
    """Return the key that a page shows."""
    found = re.search(r"evg_\w+", page.text)
    assert found is not None, words_of(page)
    return found[0]


def made_by(operator: Operator, **fields: object) -> tuple[str, str]:
    """Make a key; return its id and its text."""
    form = {"once": hidden(operator.get("keys/new")), "name": "agents", "permissions": ["tokens:fetch", "connect"]}
    page = operator.post("keys/new", {**form, **fields})
    assert page.status_code == 200, words_of(page)
    text = shown(page)
    return text.split("_")[1], text


def answer_to(here: Installation, text: str) -> int:
    with httpx2.Client(base_url=here.url, trust_env=False) as http:
        header = {"Authorization": f"Bearer {here.backend.project_id}:{text}"}
        return http.get("/v1/mgmt/outbound/apps", headers=header).status_code


def test_a_key_is_shown_once_and_a_form_that_is_sent_again_makes_no_other(
    here: Installation, operator: Operator
) -> None:
    form = {"once": hidden(operator.get("keys/new")), "name": "once only", "permissions": ["apps:read"]}
    page = operator.post("keys/new", form)
    text = shown(page)
    assert answer_to(here, text) == 200
    assert text not in str(page.url)
    assert "no-store" in page.headers["cache-control"]
    again = operator.post("keys/new", form)
    assert (again.status_code, again.headers["location"]) == (
        303,
        f"/console/{operator.project_id}/keys/{text.split('_')[1]}",
    )
    assert [row["name"] for row in rows(here.settings, "management_keys")].count("once only") == 1
    assert text not in operator.get("keys").text + operator.get(f"keys/{text.split('_')[1]}").text


def test_an_operator_gives_a_key_the_right_to_fetch_and_has_none_itself(here: Installation, operator: Operator) -> None:
    key_id, _ = made_by(operator)
    assert {"tokens:fetch", "connect"} == set(
        here.backend.http.get(f"/v1/mgmt/managementkey?id={key_id}").json()["key"]["permissions"]
    )
    with httpx2.Client(base_url=here.url, cookies=dict(operator.http.cookies), trust_env=False) as http:
        assert http.post("/v1/mgmt/outbound/app/user/token/latest", json={}).status_code == 401


def test_a_wrong_form_comes_back_with_its_fields_and_the_first_wrong_one_focused(operator: Operator) -> None:
    form = {
        "once": hidden(operator.get("keys/new")),
        "name": "kept name",
        "networks": "nowhere",
        "expires": "2020-01-01",
    }
    page = operator.post("keys/new", form)
    assert page.status_code == 400
    assert "kept name" in page.text
    assert re.search(r'<input id="expires"[^>]*autofocus', page.text)
    page = operator.post("keys/new", {**form, "expires": "", "permissions": ["connect"]})
    assert "'nowhere' is not an address or a network" in words_of(page)


def test_a_replaced_key_stands_still_until_it_is_disabled_and_its_session_ends_with_it(
    here: Installation, operator: Operator
) -> None:
    old_id, old = made_by(operator, name="nightly", permissions=["apps:read", "keys"])
    with httpx2.Client(base_url=here.url, trust_env=False) as session:
        form = {"project": here.backend.project_id, "key": old}
        assert session.post("/console/sign-in", data=form, headers=SAME_ORIGIN).status_code == 303
        keys = f"/console/{here.backend.project_id}/keys"
        assert session.get(keys).status_code == 200
        ask = operator.get(f"keys/{old_id}/replace")
        assert "see apps, manage keys" in words_of(ask).lower()
        made = operator.post(f"keys/{old_id}/replace", {"once": hidden(ask), "name": "nightly 2"})
        new = shown(made)
        assert (answer_to(here, old), answer_to(here, new)) == (200, 200)
        assert "To be disabled" in words_of(operator.get(f"keys/{old_id}"))
        operator.post(f"keys/{old_id}/disable")
        wait_until(lambda: answer_to(here, old) == 401, "the old key is refused")
        wait_until(lambda: session.get(keys).status_code == 303, "its session is over")
    assert answer_to(here, new) == 200
    assert "Disabled" in words_of(operator.get(f"keys/{old_id}"))
    operator.post(f"keys/{old_id}/enable")
    assert "To be disabled" in words_of(operator.get(f"keys/{old_id}"))
    assert operator.post(f"keys/{old_id}/delete").status_code == 303
    assert operator.get(f"keys/{old_id}").status_code == 404


def test_whoever_signs_in_with_a_key_gives_no_key_more_than_that(here: Installation, operator: Operator) -> None:
    _, text = made_by(operator, name="keeper", permissions=["keys", "apps:read"])
    with httpx2.Client(base_url=here.url, trust_env=False) as session:
        form = {"project": here.backend.project_id, "key": text}
        session.post("/console/sign-in", data=form, headers=SAME_ORIGIN)
        new = f"/console/{here.backend.project_id}/keys/new"
        page = session.get(new)
        assert "Manage policies" not in words_of(page)
        made = session.post(
            new, data={"once": hidden(page), "name": "more", "permissions": ["policies"]}, headers=SAME_ORIGIN
        )
        assert made.status_code == 403
        assert "lacks permissions that the other key has: policies" in words_of(made)
    assert "more" not in [row["name"] for row in rows(here.settings, "management_keys")]


def test_a_sign_in_that_is_old_makes_no_key(
    here: Installation, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = hidden(operator.get("keys/new"))
    monkeypatch.setattr("evergrant.broker.operators.signed_in.RECENT", timedelta(seconds=-1))
    page = operator.post("keys/new", {"once": once, "name": "late", "permissions": ["connect"]})
    assert page.status_code == 403
    assert "Sign in again" in words_of(page)


def test_a_key_is_made_and_stored_by_keyboard_and_mouse(here: Installation, admin_person: Person) -> None:
    page = admin_person.tab()
    page.goto(f"{here.url}/console/{here.backend.project_id}/keys")
    page.get_by_role("link", name="Make a key").click()
    page.get_by_role("link", name="Backend").click()
    expect(page.get_by_label("Upload and end connections")).to_be_checked()
    page.get_by_label("What is it for?").fill("eu backend 🚀")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Store “eu backend 🚀” now")).to_be_visible()
    assert page.get_by_label("The key", exact=True).input_value().startswith("evg_")
    page.get_by_role("link", name="I stored it").click()
    expect(page.get_by_role("link", name="eu backend 🚀")).to_be_visible()
