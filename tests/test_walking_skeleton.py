"""The main job, end to end through HTTP: configure, connect, fetch, refresh."""

from evergrant.settings import Settings
from tests.infra.installation import installation


def test_a_connected_users_token_is_fetched_and_refreshed(settings: Settings) -> None:
    with installation(settings.model_copy(update={"refresher": False})) as here:
        here.connected("alice")
        first = here.backend.token("alice")
        second = here.backend.token("alice", options={"forceRefresh": True})
        assert first["accessToken"] != second["accessToken"]
        assert here.provider.state.token_calls["refresh_token"] == 1
