"""Attacks on a person's page of connected accounts: links that are used again, frames, cookies of another place."""

from tests.infra.installation import Installation
from tests.infra.visits import Visitor, accounts_in, embed_in, session_url

OURS, EVIL = "https://app.example.com", "https://evil.example.com"


def test_a_stolen_link_to_the_accounts_opens_nothing_a_second_time(here: Installation, user: str) -> None:
    here.connected(user)
    link, owner, thief = session_url(here, user), Visitor(here), Visitor(here)
    assert len(accounts_in(owner.open(link))) == 1
    for address in (link, f"{link}?again=1", f"{link}?frame=accounts"):
        stolen = thief.open(address)
        assert accounts_in(stolen) == []
    entered = thief.browser.http.post(
        f"{here.url}/embed/{here.backend.project_id}/enter",
        data={"code": link.rpartition("/")[2], "show": "accounts"},
        headers={"Sec-Fetch-Site": "same-origin", "Cookie": "evergrant-accounts-frame=" + "a" * 43},
    )
    assert entered.status_code == 404
    assert thief.open().status_code == 404
    assert owner.open().status_code == 200  # control


def test_a_foreign_page_gets_no_frame_with_somebodys_accounts(here: Installation, user: str) -> None:
    embed_in(here, OURS)
    here.connected(user)
    own_page, frame = Visitor(here), Visitor(here, base=f"/embed/{here.backend.project_id}")
    answers = [own_page.open(session_url(here, user))]
    assert "frame-ancestors 'none'" in answers[0].headers["content-security-policy"]
    link = session_url(here, user)
    first = frame.get(f"{link}?frame=accounts")
    cookie = first.headers["set-cookie"]
    assert "HttpOnly; Secure; SameSite=None; Partitioned" in cookie
    # The test's own client keeps no secure cookie of plain http, as a browser does for loopback.
    jar = {"cookie": cookie.partition(";")[0], "sec-fetch-site": "same-origin"}
    code = {"code": link.rpartition("/")[2], "show": "accounts"}
    entered = frame.browser.http.post(f"{here.url}{frame.base}/enter", data=code, headers=jar)
    assert entered.status_code == 303, entered.text
    page = frame.get(f"{frame.base}/accounts", headers=jar)
    assert len(accounts_in(page)) == 1
    for answer in (first, page):
        assert f"frame-ancestors {OURS};" in answer.headers["content-security-policy"]
        assert EVIL not in answer.text
    # Neither place takes the other's cookie: what is on a page of its own is never in a frame.
    name, _, value = jar["cookie"].partition("=")
    swapped = {"cookie": f"{name.removesuffix('-frame')}={value}"}
    assert frame.get("/accounts", headers=jar).status_code == 404
    assert frame.get(f"{frame.base}/accounts", headers=swapped).status_code == 404
