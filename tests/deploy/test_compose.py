"""The compose file's profiles: what they mount is there, and what they name each other by is the same."""

import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from evergrant.settings import PREFIX, Settings
from evergrant.web.protocol import IDLE_SECONDS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:-((?:[^${}]|\$\{[^}]*\})*)\}", r"\1", TEXT))
"""With nothing in .env: each variable is its default."""
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ALWAYS = {"postgres", "migrate", "evergrant", "refresher"}


def with_defaults(text: str) -> str:
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def test_without_a_profile_nothing_but_evergrant_and_its_database_starts() -> None:
    assert {name for name, service in SERVICES.items() if not service.get("profiles")} == ALWAYS


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - ALWAYS))
def test_a_service_of_a_profile_has_next_to_no_privileges_and_mounts_what_is_there(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "caddy" else [])
    assert service["security_opt"] == ["no-new-privileges:true"]
    mounts = [volume.split(":") for volume in service["volumes"]]
    assert any(mount[0].startswith("./") for mount in mounts)
    for source, _, *mode in mounts:
        if source.startswith("./"):
            assert (ROOT / source).is_file(), source
            assert mode == ["ro"]
        else:
            assert source in COMPOSE["volumes"]


@pytest.mark.parametrize("name", ["migrate", "evergrant", "refresher"])
def test_every_setting_in_env_reaches_evergrant(name: str) -> None:
    bootstrap = {setting for setting in Settings.model_fields if setting.startswith("bootstrap_")}
    by_itself = {"data_dir", "refresher"} | (set() if name == "evergrant" else bootstrap)
    handed_on = {f"{PREFIX}{setting.upper()}" for setting in Settings.model_fields.keys() - by_itself}
    environment = SERVICES[name]["environment"]
    assert {variable for variable in environment if variable.startswith(PREFIX)} == handed_on
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in environment
    of_traces = set(re.findall(r"`(OTEL_\w+)`", (ROOT / "docs/tracing.md").read_text()))
    assert {variable for variable in environment if variable.startswith("OTEL_")} == of_traces


def test_only_the_proxy_is_reached_from_outside_of_the_machine() -> None:
    published = {
        name
        for name, service in SERVICES.items()
        if any(not port.startswith("127.0.0.1:") for port in service.get("ports", []))
    }
    assert published == {"caddy"}


def test_evergrant_trusts_the_proxy_at_its_address_and_no_network() -> None:
    address = with_defaults(SERVICES["caddy"]["networks"]["default"]["ipv4_address"])
    trusted = with_defaults(SERVICES["evergrant"]["environment"]["EVERGRANT_TRUSTED_PROXIES"])
    assert Settings(trusted_proxies=trusted).trusted_proxies.split(",") == ["127.0.0.1", address]
    (pool,) = COMPOSE["networks"]["default"]["ipam"]["config"]
    assert ipaddress.ip_address(address) in ipaddress.ip_network(with_defaults(pool["subnet"]))


def test_the_proxy_leads_to_evergrant_and_not_to_its_metrics() -> None:
    caddyfile = (ROOT / "deploy/compose/Caddyfile").read_text()
    assert re.search(r"^\trespond /metrics 404$", caddyfile, flags=re.MULTILINE)
    assert re.search(r"^\treverse_proxy evergrant:8420 ", caddyfile, flags=re.MULTILINE)
    assert set(re.findall(r"\{\$(\w+)\}", caddyfile)) == set(SERVICES["caddy"]["environment"])
    kept = re.search(r"^\t{3}keepalive (\d+)s$", caddyfile, flags=re.MULTILINE)
    assert kept is not None
    assert int(kept[1]) < IDLE_SECONDS, "Caddy sends requests on connections that evergrant closes"


def test_prometheus_asks_every_process_with_the_token_that_evergrant_has() -> None:
    (job,) = yaml.safe_load((ROOT / "deploy/monitoring/prometheus.yml").read_text())["scrape_configs"]
    refresher = SERVICES["refresher"]["command"]
    port = refresher[refresher.index("--metrics-port") + 1]
    assert job["static_configs"] == [{"targets": ["evergrant:8420", f"refresher:{port}"]}]
    (secret,) = SERVICES["prometheus"]["secrets"]
    assert job["authorization"] == {"credentials_file": f"/run/secrets/{secret}"}
    assert COMPOSE["secrets"][secret] == {"environment": "EVERGRANT_METRICS_TOKEN"}
    assert not SERVICES["prometheus"].get("read_only"), "compose puts no secret from the environment into one"
