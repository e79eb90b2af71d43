"""A management key that got into other hands: it is found, does what it was made for and no more, and ends quickly."""

import re
import time
from pathlib import Path

import pytest

from evergrant.crypto.opaque import is_management_key, new_id, new_management_key
from tests.infra.installation import APP_ID, Backend, Installation, new_project
from tests.infra.rows import dump, rows
from tests.infra.serving import ServerProcess, environment_of
from tests.infra.settings import settings_on
from tests.web.conftest import MakeBackend

SECONDS_UNTIL_IT_ENDS = 5


def test_a_leaked_key_is_found_in_a_pile_of_text_and_nothing_else_is_taken_for_one(here: Installation) -> None:
    """The promise: keys have a prefix, an id and a checksum, so that scanners of secrets find them without alarms."""
    lookalikes = [f"evg_{new_id(12)}_{new_id(49)}" for _ in range(200)]
    pile = "\n".join(["key=" + key + ";" for key in lookalikes] + [f'export KEY="{here.backend.management_key}"'])
    found = [text for text in re.findall(r"evg_[A-Za-z0-9]+_[A-Za-z0-9]{49}\b", pile) if is_management_key(text)]
    assert found == [here.backend.management_key]
    mistyped = here.backend.management_key[:-7] + "?" + here.backend.management_key[-6:]
    assert not is_management_key(mistyped)


def test_a_key_that_somebody_made_up_in_the_right_form_lets_nobody_in(here: Installation) -> None:
    row = rows(here.settings, "management_keys")[0]
    for text in (new_management_key(row["id"]), new_management_key(new_id(12))):
        assert is_management_key(text), "its checksum is right: whoever reads the source can work that out"
        forger = Backend(here.url, here.backend.project_id, text)
        assert forger.get("apps").status_code == 401
        forger.http.close()
    assert here.backend.get("apps").status_code == 200  # control


def test_a_stolen_key_does_no_more_than_it_was_made_for(here: Installation, backend_with: MakeBackend) -> None:
    here.connected("alice")
    here.backend.create_app({"id": "unrelated", "name": "Unrelated"})
    stolen = backend_with(permissions=["tokens:fetch"], app_ids=[APP_ID], allowed_cidrs=["127.0.0.0/8"])
    before = dump(here.settings)
    tries = {
        "app/create": {"name": "Mine"},
        "app/update": {"app": {**here.backend.app(), "tokenUrl": "https://attacker.example/token"}},
        "app/delete": {"id": APP_ID},
        "app/connect": {"appId": APP_ID, "userId": "mallory"},
        "app/user/oauthtoken/upload": {"appId": APP_ID, "userId": "alice", "accessToken": "planted"},
        "app/user/token/latest": {"appId": "unrelated", "userId": "alice"},
        "policies": {"appId": APP_ID, "action": "fetch"},
        "webhook/create": {"url": "https://attacker.example/hook"},
    }
    for path, body in tries.items():
        assert stolen.post(path, body).status_code == 403, path
    with_refresh_token = {"appId": APP_ID, "userId": "alice", "options": {"withRefreshToken": True}}
    assert stolen.post("app/user/token/latest", with_refresh_token).status_code == 403
    assert stolen.http.put("/v1/mgmt/managementkey", json={"permissions": ["keys"]}).status_code == 403
    for path in ("apps", f"app/{APP_ID}"):
        assert stolen.get(path).status_code == 403, path
    assert dump(here.settings) == before
    assert stolen.token("alice")["accessToken"]  # control


def test_a_stolen_key_opens_nothing_from_the_thiefs_own_network(here: Installation, backend_with: MakeBackend) -> None:
    stolen = backend_with(allowed_cidrs=["10.20.0.0/16"])
    ours, thiefs = {"X-Forwarded-For": "10.20.30.40"}, {"X-Forwarded-For": "198.51.100.7"}
    for headers in (thiefs, {}, {"X-Forwarded-For": "10.20.30.40, 198.51.100.7"}, {"X-Real-IP": "10.20.30.40"}):
        assert stolen.http.get("/v1/mgmt/outbound/apps", headers=headers).status_code == 401, headers
    assert stolen.http.get("/v1/mgmt/outbound/apps", headers=ours).status_code == 200  # control


@pytest.mark.slow
def test_a_stolen_key_that_is_disabled_ends_on_every_replica_within_five_seconds(
    postgresql_url: str, data_dir: Path, tmp_path: Path
) -> None:
    settings = settings_on(postgresql_url, data_dir, refresher=False)
    made = new_project(settings)
    environment = environment_of(settings)
    with (
        ServerProcess(environment, log=tmp_path / "one.log") as one,
        ServerProcess(environment, log=tmp_path / "two.log") as two,
    ):
        operator = Backend(one.url, made.project_id, made.management_key)
        key = operator.http.put("/v1/mgmt/managementkey", json={"name": "stolen", "permissions": ["apps:read"]}).json()
        thieves = [Backend(server.url, made.project_id, key["cleartext"]) for server in (one, two)]
        for thief in thieves:
            assert thief.get("apps").status_code == 200  # control: it works, and both remember it
        off = {"id": key["key"]["id"], "name": "stolen", "status": "inactive"}
        assert operator.http.patch("/v1/mgmt/managementkey", json=off).status_code == 200
        time.sleep(SECONDS_UNTIL_IT_ENDS)
        assert [thief.get("apps").status_code for thief in thieves] == [401, 401]
        assert operator.get("apps").status_code == 200
        for backend in (operator, *thieves):
            backend.http.close()
