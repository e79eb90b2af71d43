"""Floods of bodies: what is too large, too deep or too much is refused before it costs anything."""

import json
from collections.abc import Iterator

import httpx2

from tests.infra.installation import APP_ID, SCOPES, Installation
from tests.infra.rows import dump

MIB = 1024 * 1024
CALLS = ("outbound/app/create", "outbound/app/user/token", "outbound/app/connect", "audit/search", "trustedissuer")
FORM = "application/x-www-form-urlencoded"
BATCH = "outbound/app/user/oauthtoken/batch/upload"


def chunks(size: int) -> Iterator[bytes]:
    """Yield a body in pieces, of which nobody knows beforehand how much it is."""
    for _ in range(0, size, 65_536):
        yield b" " * 65_536


def send(
    here: Installation, path: str, body: bytes | Iterator[bytes], *, key: str = "", kind: str = "application/json"
) -> httpx2.Response:
    headers = {"Content-Type": kind, **({"Authorization": f"Bearer {key}"} if key else {})}
    return httpx2.post(f"{here.url}/{path}", content=body, headers=headers, timeout=60, trust_env=False)


def test_a_body_of_more_than_a_mebibyte_is_not_read_whoever_sends_it(here: Installation) -> None:
    key = f"{here.backend.project_id}:{here.backend.management_key}"
    before = dump(here.settings)
    for call in CALLS:
        for size in (MIB + 1, 2 * MIB):
            for body in (b" " * size, chunks(size)):
                assert send(here, f"v1/mgmt/{call}", body).status_code in (401, 413), call
            for body in (b" " * size, chunks(size)):
                assert send(here, f"v1/mgmt/{call}", body, key=key).status_code == 413, call
    assert send(here, f"v1/mgmt/{BATCH}", chunks(11 * MIB), key=key).status_code == 413
    for page in ("v1/outbound/oauth/callback", "oauth2/v1/token"):
        assert send(here, page, chunks(2 * MIB), kind=FORM).status_code == 413, page
    assert send(here, "connect/nothing", chunks(2 * MIB), kind=FORM).status_code == 400  # a link that is none: unread
    assert dump(here.settings) == before
    here.connected("alice")  # control: a body of exactly as much as is allowed is read
    body = json.dumps({"appId": APP_ID, "userId": "alice", "scopes": SCOPES}).encode()
    assert send(here, "v1/mgmt/outbound/app/user/token", body.ljust(MIB), key=key).status_code == 200


def test_a_body_that_nests_without_end_is_refused_as_bad_and_not_as_a_bug(here: Installation) -> None:
    key = f"{here.backend.project_id}:{here.backend.management_key}"
    for body in (b"[" * 900_000, b'{"a":' * 150_000, b'{"appId":' + b"[" * 500_000, b"1" * 900_000):
        answer = send(here, "v1/mgmt/outbound/app/user/token", body, key=key)
        assert answer.status_code == 400, body[:20]
    assert here.backend.get("apps").status_code == 200  # control


def test_a_form_of_ten_thousand_parts_is_no_more_than_a_bad_form(here: Installation) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n'
    fields = b"&".join(b"a%d=b" % number for number in range(100_000))
    for content_type, body in (
        ("multipart/form-data; boundary=x", part * 10_000),
        ("application/x-www-form-urlencoded", fields),
    ):
        for path in ("connect/nothing", "oauth2/v1/token", "v1/outbound/oauth/callback"):
            answer = send(here, path, body, kind=content_type)
            assert 400 <= answer.status_code < 500, (path, answer.status_code)
    browser = here.browser()
    assert browser.connect(here.backend.connect_url("bob"))["outboundStatus"] == "connected"  # control
