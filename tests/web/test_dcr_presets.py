"""Presets: an app that registers by itself, without anybody having registered a client."""

from urllib.parse import parse_qs, urlsplit

import pytest

from evergrant.catalog.template import DcrPreset
from tests.infra.installation import Installation
from tests.infra.registrar import Registrar
from tests.infra.scripted import serving

CREATE = "app/create/bydcrpreset"


def local_preset(name: str, server: Registrar) -> DcrPreset:
    # not validated: a file of the catalogue may only name https addresses
    return DcrPreset.model_construct(
        id="local", name=name, category="", discovery_url=server.url, documentation_url="", verification=""
    )


def test_a_preset_makes_an_app_that_registers_at_the_first_connect(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Registrar()) as server:
        preset = local_preset("Local server", server)
        monkeypatch.setattr("evergrant.web.api.templates.dcr_presets", lambda: {"local": preset})
        answer = here.backend.post(CREATE, {"dcrPresetId": "local", "tenantId": "acme"})
        assert answer.status_code == 200, answer.text
        app = answer.json()["app"]
        assert (app["useDcr"], app["tenantId"]) == (True, "acme")
        assert (app["clientId"], app["tokenUrl"]) == ("", f"{server.url}/token")
        url = here.browser().agree(here.backend.connect_url(appId=app["id"], tenantId="acme"))
        assert parse_qs(urlsplit(url).query)["client_id"] == ["client-0"]
        assert len(server.registered) == 1


def test_a_preset_for_everybody_and_one_for_a_tenant_can_both_be_made(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Registrar()) as server:
        preset = local_preset("Another server", server)
        monkeypatch.setattr("evergrant.web.api.templates.dcr_presets", lambda: {"local": preset})
        assert here.backend.post(CREATE, {"dcrPresetId": "local", "tenantId": "globex"}).status_code == 200
        assert here.backend.post(CREATE, {"dcrPresetId": "local"}).status_code == 200
        assert here.backend.post(CREATE, {"dcrPresetId": "local"}).json()["errorCode"] == "E111507"


def test_an_unknown_preset_is_refused_by_name(here: Installation) -> None:
    answer = here.backend.post(CREATE, {"dcrPresetId": "nothing"})
    assert (answer.status_code, answer.json()["errorCode"]) == (400, "E011003")
    assert answer.json()["details"]["fields"][0]["field"] == "dcrPresetId"
    assert "linear" in answer.json()["details"]["fields"][0]["problem"]
