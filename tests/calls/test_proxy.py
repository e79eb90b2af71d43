"""The proxy: what goes on to an API, what comes back, and whose word it is."""

from tests.calls.conftest import Api


def test_a_call_carries_the_connections_token_and_the_path_as_it_came(api: Api) -> None:
    answer = api.call("/v1/a%20b/c?x=%2F&empty", "POST", json={"a": 1})
    assert (answer.status_code, answer.json()) == (200, {"ok": True}), answer.text
    request = api.provider.requests[-1]
    assert request.target == "/base/v1/a%20b/c?x=%2F&empty"
    assert request.headers["authorization"] == f"Bearer {api.token}"
    assert request.json == {"a": 1}
    assert answer.headers["evergrant-source"] == "provider"
