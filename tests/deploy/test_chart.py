"""The Helm chart: what it makes says the same as the compose file, the settings and its own page."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from evergrant.settings import PREFIX, SECRETS, Settings
from scripts import check_chart
from tests.test_house import unknown_words

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DEFAULTS: dict[str, Any] = yaml.safe_load((check_chart.CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((check_chart.CHART / "values.schema.json").read_text())
FROM_FILES = {f"{PREFIX}{name.upper()}" for name in (*SECRETS, "vault_token")}
OF_THE_CHART = {f"{PREFIX}{name}" for name in ("PUBLIC_URL", "DATA_DIR", "REFRESHER")}
"""Settings that the chart decides, or has a value of its own for."""

Objects = dict[tuple[str, str], dict[str, Any]]


def made_with(values: str, *options: str) -> Objects:
    objects = check_chart.render(check_chart.CHART / f"ci/{values}-values.yaml", *options)
    return {(one["kind"], one["metadata"]["name"].removeprefix("evergrant").strip("-")): one for one in objects}


@pytest.fixture(scope="module")
def least() -> Objects:
    return made_with("least")


@pytest.fixture(scope="module")
def most() -> Objects:
    return made_with("most")


def pods_of(objects: Objects) -> dict[str, dict[str, Any]]:
    """Return the pod of each workload, by its component."""
    return {
        name: one["spec"]["template"]["spec"] for (kind, name), one in objects.items() if kind in ("StatefulSet", "Job")
    }


def test_each_part_runs_as_compose_runs_it(least: Objects) -> None:
    pods = pods_of(least)
    for component, service in {"server": "evergrant", "refresher": "refresher", "migrate": "migrate"}.items():
        (container,) = pods[component]["containers"]
        assert unknown_words(" ".join(["evergrant", *container["args"]])) == []
        assert set(COMPOSE["services"][service]["command"]) <= set(container["args"])
        assert container["image"] == COMPOSE["services"][service]["image"]
        assert container["securityContext"] == {
            "readOnlyRootFilesystem": COMPOSE["services"][service]["read_only"],
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": COMPOSE["services"][service]["cap_drop"]},
        }
        assert pods[component]["securityContext"]["runAsUser"] == 10001
        assert pods[component]["automountServiceAccountToken"] is False


@pytest.mark.parametrize(("component", "service"), [("server", "evergrant"), ("refresher", "refresher")])
def test_a_replica_has_a_folder_that_outlives_it_time_to_end_and_its_port_watched(
    least: Objects, component: str, service: str
) -> None:
    made = least["StatefulSet", component]["spec"]
    (claim,) = made["volumeClaimTemplates"]
    assert made["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    (container,) = made["template"]["spec"]["containers"]
    assert {"name": claim["metadata"]["name"], "mountPath": "/var/lib/evergrant"} in container["volumeMounts"]
    paused = int(re.findall(r"sleep\((\d+)\)", container["lifecycle"]["preStop"]["exec"]["command"][2])[0])
    grace = int(COMPOSE["services"][service]["stop_grace_period"].removesuffix("s"))
    assert made["template"]["spec"]["terminationGracePeriodSeconds"] >= grace + paused
    (port,) = container["ports"]
    assert port["containerPort"] == {"server": 8420, "refresher": 9464}[component]
    probes = {name: container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {probe["port"] for probe in probes.values()} == {port["containerPort"]}
    assert [probe["path"] for probe in probes.values()] == ["/healthz", "/healthz", "/readyz"]


def test_every_process_has_the_same_settings_and_secrets_only_as_files(most: Objects) -> None:
    settings = most["ConfigMap", ""]["data"]
    assert settings["EVERGRANT_CALL_MOST_BYTES"] == "104857600"
    assert settings["EVERGRANT_CONSOLE_KEY_SIGN_IN"] == "false"
    for component, pod in pods_of(most).items():
        (container,) = pod["containers"]
        given = {one["name"]: one["value"] for one in container["env"]}
        assert ("envFrom" in container) != (settings.items() <= given.items()), component
        secrets = {name.removesuffix("_FILE"): path for name, path in given.items() if name.endswith("_FILE")}
        assert len(secrets) == 4
        assert secrets.keys() <= FROM_FILES
        assert given.keys() & FROM_FILES == set()
        (volume,) = (one["projected"] for one in pod["volumes"] if one["name"] == "secrets")
        assert volume["defaultMode"] == 0o440
        files = {item["path"] for source in volume["sources"] for item in source["secret"]["items"]}
        (mount,) = (one["mountPath"] for one in container["volumeMounts"] if one["name"] == "secrets")
        assert {f"{mount}/{name}" for name in files} == set(secrets.values())


def test_the_schema_has_every_setting_and_no_other() -> None:
    every = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    mend = "a new setting goes into values.schema.json of the chart too, under `settings` or `secrets`"
    assert set(SCHEMA["properties"]["secrets"]["properties"]) == FROM_FILES, mend
    assert set(SCHEMA["properties"]["settings"]["properties"]) == every - FROM_FILES - OF_THE_CHART, mend


def test_a_wrong_value_is_refused_by_its_name() -> None:
    for wrong, named in (
        ("settings.EVERGRANT_TRUSTED_PROXY=10.0.0.1", "EVERGRANT_TRUSTED_PROXY"),
        ("publicUrl=http://evergrant.example.com", "publicUrl"),
        ("server.replica=3", "replica"),
        ("journal.size=lots", r"journal\.size"),
        ("server.autoscaling.enabled=true,server.autoscaling.minReplicas=11", r"autoscaling\.minReplicas"),
    ):
        with pytest.raises(check_chart.Wrong, match=named):
            made_with("least", "--set", wrong)
    with pytest.raises(check_chart.Wrong, match=r"secrets\.EVERGRANT_METRICS_TOKEN"):
        made_with("least", "--set", "monitoring.serviceMonitor=true")


def test_prometheus_scrapes_each_replica_and_has_our_alerts_and_grafana_our_dashboard(most: Objects) -> None:
    monitor = most["ServiceMonitor", ""]["spec"]
    (endpoint,) = monitor["endpoints"]
    wanted = monitor["selector"]["matchLabels"].items()
    found = {
        name: one["spec"].get("clusterIP")
        for (kind, name), one in most.items()
        if kind == "Service"
        and wanted <= one["metadata"]["labels"].items()
        and endpoint["port"] in {port["name"] for port in one["spec"]["ports"]}
    }
    assert found == {"server": "None", "refresher": "None"}
    # Not the release's name, which the operator chooses: alerts name the job `evergrant`.
    assert monitor["jobLabel"] == "app.kubernetes.io/name"
    assert most["Service", "server"]["metadata"]["labels"][monitor["jobLabel"]] == "evergrant"
    assert most["PrometheusRule", ""]["spec"] == yaml.safe_load((ROOT / "deploy/monitoring/alerts.yml").read_text())
    dashboard = (ROOT / "deploy/monitoring/grafana/evergrant.json").read_text()
    assert json.loads(most["ConfigMap", "dashboard"]["data"]["evergrant.json"]) == json.loads(dashboard)


def test_it_has_the_version_of_the_code() -> None:
    chart = yaml.safe_load((check_chart.CHART / "Chart.yaml").read_text())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (chart["version"], chart["appVersion"]) == (version, version)


def leaves(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= leaves(value, f"{path}{name}.") if isinstance(value, dict) and value else {f"{path}{name}": value}
    return found


def test_the_page_has_each_value_with_its_default() -> None:
    page = (check_chart.CHART / "README.md").read_text()
    rows = re.findall(r"^\| `([\w.]+)` \| `(.*?)` \|", page, flags=re.MULTILINE)
    assert {name: yaml.safe_load(default) for name, default in rows} == leaves(DEFAULTS)


def test_every_object_is_as_kubernetes_has_it(least: Objects) -> None:
    one = least["StatefulSet", "server"]
    assert check_chart.problems_of(one) == []
    misspelt = {**one, "spec": {**one["spec"], "replica": 2}}
    assert any("replica" in problem for problem in check_chart.problems_of(misspelt))
