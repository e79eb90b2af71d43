"""Getting in to the console, and out again."""

from collections.abc import Callable
from urllib.parse import urlsplit

import httpx2

from tests.infra.console import SAME_ORIGIN, Operator, one_time_link, words_of
from tests.infra.installation import Installation
from tests.infra.rows import rows


def stranger(here: Installation) -> httpx2.Client:
    return httpx2.Client(base_url=here.url, trust_env=False)


def test_a_one_time_link_signs_one_browser_in_and_looking_at_it_uses_nothing_up(here: Installation) -> None:
    link = urlsplit(one_time_link(here.settings, project_id=here.backend.project_id)).path
    with stranger(here) as one, stranger(here) as other:
        for _ in range(2):
            assert "Welcome to Shop" in words_of(one.get(link))
        entered = one.post(link, headers=SAME_ORIGIN)
        assert (entered.status_code, entered.headers["location"]) == (303, "/console")
        home = one.get("/console").headers["location"]
        assert home == f"/console/{here.backend.project_id}"
        assert one.get(home).status_code == 200
        again = other.post(link, headers=SAME_ORIGIN)
        assert again.status_code == 404
        assert "used already" in words_of(again)
    told = [row["action"] for row in rows(here.settings, "audit_events")]
    assert {"console.link_made", "console.signed_in"} <= set(told)


def test_a_management_key_signs_in_to_do_what_it_may_do(here: Installation) -> None:
    with stranger(here) as one:
        assert one.get("/console").headers["location"] == "/console/sign-in?then=%2Fconsole"
        form = {"project": here.backend.project_id, "key": here.backend.management_key}
        wrong = one.post("/console/sign-in", data={**form, "key": "x" * 60}, headers=SAME_ORIGIN)
        assert wrong.status_code == 400
        assert "No project of this installation has such a key" in words_of(wrong)
        entered = one.post("/console/sign-in", data=form, headers=SAME_ORIGIN)
        assert entered.headers["location"] == f"/console/{here.backend.project_id}"
        assert one.get(entered.headers["location"]).status_code == 200


def test_signing_out_ends_the_session_for_whoever_kept_the_cookie(here: Installation, operator: Operator) -> None:
    kept = dict(operator.http.cookies)
    assert operator.get().status_code == 200
    assert operator.post("/console/sign-out").status_code == 303
    with stranger(here) as thief:
        thief.cookies.update(kept)
        assert thief.get(f"/console/{here.backend.project_id}").status_code == 303


def test_a_form_from_elsewhere_changes_nothing(here: Installation, operator: Operator) -> None:
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {},
    ):
        assert operator.http.post("/console/sign-out", headers=headers).status_code == 403
    assert operator.get().status_code == 200
    assert operator.http.post("/console/sign-out", headers={"Origin": here.url}).status_code == 303


def test_a_link_to_the_sign_in_page_leads_nowhere_else(here: Installation) -> None:
    with stranger(here) as one:
        for then in ("https://evil.example", "//evil.example", "/console//evil.example", "/console/\\evil.example"):
            assert 'name="then" value=""' in one.get("/console/sign-in", params={"then": then}).text


def test_nobody_sees_a_project_without_a_session_of_it(
    here: Installation, operator_as: Callable[[str], Operator]
) -> None:
    with stranger(here) as one:
        answer = one.get(f"/console/{here.backend.project_id}")
        assert (answer.status_code, urlsplit(answer.headers["location"]).path) == (303, "/console/sign-in")
    assert operator_as("viewer").get("/console/Pnobody").status_code == 404


def test_a_slash_too_many_leads_to_the_overview_and_a_page_that_is_not_there_leads_on(operator: Operator) -> None:
    home = f"/console/{operator.project_id}"
    answer = operator.http.get(f"{home}/")
    assert (answer.status_code, answer.headers["location"]) == (303, home)
    lost = operator.get("nothing/here")
    assert lost.status_code == 404
    assert 'href="/console">Go to the project' in lost.text
