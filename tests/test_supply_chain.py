"""What evergrant is made of: named exactly, the same for everybody who builds it, and asked about."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.release import audit, images, sbom
from tests.infra.scripted import Request, ScriptedProvider, answer, serving

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE_FILE = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_FILE)


class TestBaseImages:
    def test_each_is_named_by_its_patch_version_and_its_system(self) -> None:
        taken = re.findall(r"^FROM (\S+)", DOCKERFILE, flags=re.MULTILINE)
        taken += [service["image"] for service in COMPOSE["services"].values() if "build" not in service]
        assert len(taken) == 6
        debian = r"(python:3\.\d+\.\d+-slim|postgres:\d+\.\d+)-trixie"
        others = r"caddy:\d+\.\d+\.\d+-alpine|prom/prometheus:v\d+\.\d+\.\d+|grafana/grafana:\d+\.\d+\.\d+"
        for image in taken:
            assert re.fullmatch(rf"({debian}|{others})(@sha256:[0-9a-f]{{64}})?", image)

    def test_nothing_else_is_fetched_to_build_the_image(self) -> None:
        assert "# syntax=" not in DOCKERFILE, "that is an image too, by a tag that moves"
        assert not re.search(r"^ADD |--from=[^b]|https?://(?!127\.0\.0\.1)", DOCKERFILE, flags=re.MULTILINE)

    def test_nothing_that_runs_in_the_image_needs_the_shell_that_it_has_not(self) -> None:
        last_stage = DOCKERFILE.rpartition("\nFROM ")[2]
        (version,) = set(re.findall(r"^FROM python:(3\.\d+)", DOCKERFILE, flags=re.MULTILINE))
        (command,) = re.findall(r"^RUN (.*?[^\\])$", last_stage, flags=re.MULTILINE | re.DOTALL)
        assert {"/usr/bin/sh", "/usr/bin/dash", "/usr/bin/bash", "/usr/bin/apt*"} <= set(command.split())
        assert set(re.findall(r"python(3\.\d+)", command)) == {version}
        forms = re.findall(r"^(?:    )?(?:CMD|ENTRYPOINT) (.*)$", last_stage, flags=re.MULTILINE)
        checks = [
            service["healthcheck"].get("test") for service in (COMPOSE["services"].values()) if "healthcheck" in service
        ]
        forms += [json.dumps(test[1:]) for test in checks if test]
        assert len(forms) == 5
        for form in forms:
            assert json.loads(form), "a list of words, which needs no shell"

    def test_the_database_has_no_privileges_either(self) -> None:
        postgres = COMPOSE["services"]["postgres"]
        assert postgres["user"] == "postgres"
        assert (postgres["read_only"], postgres["cap_drop"]) == (True, ["ALL"])
        assert "cap_add" not in postgres
        assert postgres["security_opt"] == ["no-new-privileges:true"]
        assert "ports" not in postgres


TAKEN = [image for text in (DOCKERFILE, COMPOSE_FILE) for image in images.images_in(text)]
PATHS = {image.name: f"/v2/{image.repository}/manifests/{image.tag}" for image in TAKEN}
DIGEST = re.compile("@sha256:[0-9a-f]{64}")


def index(name: str) -> bytes:
    """Return a list of images as a registry has it."""
    platforms = [{"platform": {"os": "linux"}, "digest": f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"}]
    return json.dumps({"schemaVersion": 2, "mediaType": images.MANIFESTS[0], "manifests": platforms}).encode()


class Registry(ScriptedProvider):
    """A registry of public images: it wants the token that it gives to anybody."""

    def __init__(self) -> None:
        super().__init__()
        self.routes["/token"] = {"token": "for-anybody"}
        self.manifests = {path: index(name) for name, path in PATHS.items()}
        self.told: dict[str, str] = {}
        self.answers(self._manifest)

    def _manifest(self, request: Request) -> bytes:
        if request.headers.get("authorization") != "Bearer for-anybody":
            challenge = f'Bearer realm="{self.url}/token",service="registry",scope="repository:x:pull"'
            return answer(401, www_authenticate=challenge)
        body = self.manifests.get(request.path)
        return answer(404) if body is None else answer(200, body, images.MANIFESTS[0], **self.told)


class TestPinning:
    @pytest.fixture
    def registry(self) -> Iterator[Registry]:
        with serving(Registry()) as running:
            yield running

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for name in images.FILES:
            shutil.copy(ROOT / name, tmp_path)
        return tmp_path

    @staticmethod
    def pin(folder: Path, registry: Registry) -> int:
        return images.main(["--folder", str(folder), "--registry", registry.url])

    def test_each_image_gets_the_digest_of_its_manifest_and_nothing_else_changes(
        self, folder: Path, registry: Registry
    ) -> None:
        assert self.pin(folder, registry) == 0
        written = [(folder / name).read_text() for name in images.FILES]
        for text, before in zip(written, (DOCKERFILE, COMPOSE_FILE), strict=True):
            assert DIGEST.sub("", text) == DIGEST.sub("", before)
        for image in TAKEN:
            with_digest = f"{image.name}:{image.tag}@sha256:{hashlib.sha256(index(image.name)).hexdigest()}"
            assert "".join(written).count(with_digest) == (2 if image.name == "python" else 1)
        assert len(DIGEST.findall("".join(written))) == 6
        assert registry.requests_to("/token")[0].query["scope"] == "repository:x:pull"

    def test_an_earlier_digest_is_replaced(self, folder: Path, registry: Registry) -> None:
        self.pin(folder, registry)
        once = (folder / "Dockerfile").read_text()
        registry.manifests[PATHS["python"]] = index("python, built anew")
        assert self.pin(folder, registry) == 0
        twice = (folder / "Dockerfile").read_text()
        assert twice != once
        assert twice.count("@sha256:") == 2

    @pytest.mark.parametrize(
        ("manifest", "told", "problem"),
        [
            (index("postgres"), {"docker_content_digest": f"sha256:{'0' * 64}"}, "but what came is"),
            (b"<html>no such thing</html>", {}, "no list of images"),
            (b"[]", {}, "no list of images"),
            (json.dumps({"mediaType": images.MANIFESTS[0], "manifests": []}).encode(), {}, "no list of images"),
            (json.dumps({"mediaType": "x/image", "manifests": [1]}).encode(), {}, "no list of images"),
            (b" " * (images.MOST_BYTES + 1), {}, "more than"),
            (None, {}, "404"),
        ],
        ids=["another digest", "a page", "no object", "an empty list", "one platform", "too much", "no such tag"],
    )
    def test_an_answer_that_proves_nothing_changes_nothing(
        self,
        folder: Path,
        registry: Registry,
        capsys: pytest.CaptureFixture[str],
        manifest: bytes | None,
        told: dict[str, str],
        problem: str,
    ) -> None:
        path = PATHS["postgres"]
        registry.manifests = {name: body for name, body in registry.manifests.items() if name != path}
        if manifest is not None:
            registry.manifests[path] = manifest
        registry.told = told
        before = {name: (folder / name).read_text() for name in images.FILES}
        assert self.pin(folder, registry) == 1
        said = capsys.readouterr().err
        assert said.startswith("Nothing is changed: ")
        assert problem in said
        assert {name: (folder / name).read_text() for name in images.FILES} == before


class TestBillOfMaterials:
    def test_it_has_exactly_what_the_lock_installs_and_evergrant_itself(self) -> None:
        lock = (ROOT / "requirements.lock").read_text()
        bill = json.loads(sbom.bill_of_materials(lock))
        assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
        ours = bill["metadata"]["component"]
        assert (ours["name"], ours["version"]) == ("evergrant", metadata.version("evergrant"))
        assert ours["licenses"] == [{"license": {"id": "Apache-2.0"}}]
        installed = {c["name"]: c for c in bill["components"]}
        pins = dict(re.findall(r"^([a-z0-9.-]+)(?:\[.*\])?==(\S+)", lock, flags=re.MULTILINE))
        elsewhere = {"httpx2-jsfetch", "pywin32"}  # a browser's Python, and Windows
        assert set(pins) - set(installed) == elsewhere
        for name, component in installed.items():
            assert component["version"] == pins[name]
            assert component["purl"] == f"pkg:pypi/{name}@{pins[name]}"
            assert {h["alg"] for h in component["hashes"]} == {"SHA-256"}
            assert component["licenses"], name
            block = re.search(
                rf"^{re.escape(name)}(?:\[[^\]]*\])?==.*?(?=^[a-z#]|\Z)", lock, flags=re.MULTILINE | re.DOTALL
            )
            assert block is not None
            assert {h["content"] for h in component["hashes"]} == set(re.findall("sha256:([0-9a-f]{64})", block[0]))

    def test_it_is_the_same_each_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lock = (ROOT / "requirements.lock").read_text()
        first = sbom.bill_of_materials(lock)
        assert sbom.bill_of_materials(lock) == first
        assert json.loads(first)["metadata"]["timestamp"].startswith("2020-02-02")
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
        assert json.loads(sbom.bill_of_materials(lock))["metadata"]["timestamp"].startswith("2026-01-01")

    def test_a_package_in_another_version_than_the_locks_is_not_written_down(self) -> None:
        with pytest.raises(SystemExit, match=r"click is installed as .*, and locked as 0\.1"):
            sbom.bill_of_materials("click==0.1 \\\n")


class TestKnownVulnerabilities:
    @pytest.fixture
    def osv(self) -> Iterator[ScriptedProvider]:
        with serving(ScriptedProvider({"/v1/query": {}})) as running:
            yield running

    @staticmethod
    def ask(osv: ScriptedProvider, tmp_path: Path, *ignored: str) -> int:
        listed = tmp_path / "ignored.toml"
        listed.write_text("\n".join(f'[[ignored]]\nid = "{name}"\nreason = "not called"' for name in ignored))
        return audit.main(["--osv-url", f"{osv.url}/v1/query", "--ignored", str(listed)])

    @staticmethod
    def one_is_known(osv: ScriptedProvider) -> None:
        def known(request: Request) -> dict[str, Any]:
            if json.loads(request.body)["package"]["name"] != "click":
                return {}
            ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.0"}]}]
            affected = [{"package": {"name": "click", "ecosystem": "PyPI"}, "ranges": ranges}]
            return {"vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "summary": "bad", "affected": affected}]}

        osv.routes["/v1/query"] = known

    def test_every_package_that_an_installation_has_is_asked_about(
        self, osv: ScriptedProvider, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.ask(osv, tmp_path) == 0
        asked = {json.loads(request.body)["package"]["name"] for request in osv.requests_to("/v1/query")}
        assert asked >= {name for name, _, _ in sbom.pins((ROOT / "requirements.lock").read_text())} | {"hatchling"}
        assert "none with a known vulnerability" in capsys.readouterr().out

    def test_one_that_is_known_fails_the_check_until_somebody_says_why_it_does_not_count(
        self, osv: ScriptedProvider, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.one_is_known(osv)
        assert self.ask(osv, tmp_path) == 1
        assert "has PYSEC-1, mended in 99.0" in capsys.readouterr().err
        assert self.ask(osv, tmp_path, "CVE-1") == 0

    def test_an_entry_that_nothing_needs_any_more_fails_it_too(
        self, osv: ScriptedProvider, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.ask(osv, tmp_path, "CVE-2") == 1
        assert "take them out" in capsys.readouterr().err

    def test_nothing_is_ignored_without_a_reason(self) -> None:
        with pytest.raises(SystemExit, match="CVE-3"):
            audit.reasons({"ignored": [{"id": "CVE-3", "reason": " "}]})

    @pytest.mark.parametrize("reply", [answer(503), answer(200, b"<html>log in first</html>"), answer(403), b""])
    def test_a_source_that_cannot_be_reached_is_told_in_one_line_and_fails_nothing(
        self, osv: ScriptedProvider, tmp_path: Path, capsys: pytest.CaptureFixture[str], reply: bytes
    ) -> None:
        def break_off(request: Request) -> None:
            request.writer.close()

        osv.routes["/v1/query"] = reply or break_off
        assert self.ask(osv, tmp_path) == 0
        assert capsys.readouterr().out == f"{audit.SKIPPED}\n"

    def test_a_question_that_pip_audit_cannot_ask_is_no_such_source(
        self, osv: ScriptedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(audit, "LOCKS", ("pyproject.toml",))
        assert self.ask(osv, tmp_path) == 1
