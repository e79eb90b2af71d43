"""A parameter that the caller's program had no value for: JavaScript writes a word, and the answer says which it is."""

from typing import Any
from urllib.parse import quote

import pytest

from tests.infra.installation import APP_ID, Installation
from tests.infra.people import someone


def refused(here: Installation, method: str, path: str) -> list[str]:
    """Make a call that is refused, and return the parameters that the answer names."""
    answer = here.backend.http.request(method, path)
    assert answer.status_code == 400, (method, path, answer.text)
    body: dict[str, Any] = answer.json()
    assert body["errorCode"] == "E011003"
    assert all("leave" in entry["problem"] for entry in body["details"]["fields"])
    return [entry["field"] for entry in body["details"]["fields"]]


def addresses(here: Installation) -> list[tuple[str, str, str]]:
    """Return every parameter of every call of ours that has one in its address: method, path, name.

    What stands behind an app in the proxy's address is the provider's own path.
    """
    paths = here.backend.http.get("/openapi.json").json()["paths"]
    return [
        (method.upper(), path, parameter["name"])
        for path, calls in paths.items()
        if not path.startswith("/v1/proxy/")
        for method, call in calls.items()
        for parameter in call.get("parameters", ())
        if parameter["in"] in ("query", "path")
    ]


def test_every_call_with_parameters_in_its_address_names_the_one_without_a_value(here: Installation) -> None:
    found = addresses(here)
    assert {"userId", "tenantId", "appId", "id", "status", "cursor", "limit"} <= {name for *_, name in found}
    for method, path, name in found:
        place = "{" + name + "}"
        address = path.replace(place, "undefined") if place in path else f"{path}?{name}=undefined"
        assert refused(here, method, address) == [name]


@pytest.mark.parametrize("word", ["undefined", "null", "NaN", "[object Object]"])
def test_each_word_that_stands_for_nothing_is_known(here: Installation, word: str) -> None:
    assert refused(here, "GET", f"/v1/mgmt/outbound/apps-with-user-token?userId={quote(word)}") == ["userId"]
    assert refused(here, "GET", f"/v1/mgmt/outbound/tokens?tenantId={quote(word)}&appId={quote(word)}") == [
        "tenantId",
        "appId",
    ]


def test_nothing_is_deleted_for_whom_it_was_not_meant(here: Installation) -> None:
    user = someone()
    here.connected(user, appId=APP_ID)
    assert refused(here, "DELETE", f"/v1/mgmt/outbound/user/tokens?appId=undefined&userId={user}") == ["appId"]
    assert refused(here, "DELETE", f"/v1/mgmt/outbound/user/tokens?appId={APP_ID}&userId=undefined") == ["userId"]
    assert here.backend.token(user)["userId"] == user


@pytest.mark.parametrize("user", ["Undefined", "nullable", "undefined-1", "none"])
def test_a_name_that_only_looks_like_it_is_a_name(here: Installation, user: str) -> None:
    answer = here.backend.get(f"apps-with-user-token?userId={user}")
    assert (answer.status_code, answer.json()) == (200, {"appIds": []})


def test_in_a_body_it_is_a_name_like_any_other(here: Installation) -> None:
    token = {"appId": APP_ID, "userId": "undefined", "accessToken": "at-undefined"}
    assert here.backend.post("app/user/oauthtoken/upload", token).status_code == 200
    assert here.backend.token("undefined")["accessToken"] == "at-undefined"
