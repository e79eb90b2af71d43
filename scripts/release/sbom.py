"""Writes the bill of materials, build/sbom.cdx.json: `make sbom`. It needs no network.

CycloneDX 1.6, with exactly what requirements.lock installs on Linux, which is what the image has: names and versions
and hashes from the lock, licences from the packages that are installed here. The same checkout gives the same bytes.
"""

import os
import re
import sys
import tomllib
import uuid
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.markers import Marker
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "build" / "sbom.cdx.json"
IN_THE_IMAGE = {
    "sys_platform": "linux",
    "platform_system": "Linux",
    "os_name": "posix",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
}
NO_DATE = 1580601600
"""2020-02-02, as hatchling has it in the wheel when SOURCE_DATE_EPOCH says nothing else."""

_PIN = re.compile(r"^(?P<name>[a-z0-9.-]+)(?:\[[^\]]*\])?==(?P<version>\S+?)(?: ; (?P<marker>[^\\\n]+?))?(?: \\)?$")


def main() -> int:
    """Write the bill of materials and say where it is."""
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(bill_of_materials((ROOT / "requirements.lock").read_text()))
    print(RESULT.relative_to(ROOT))
    return 0


def bill_of_materials(lock: str) -> str:
    """Return the CycloneDX document for a lock.

    Raises:
        SystemExit: A package is installed here in another version than the lock's, or the document is not valid.
    """
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"evergrant {project['version']}\n{lock}"))
    bom.metadata.timestamp = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", NO_DATE)), UTC)
    ours = Component(
        name="evergrant",
        version=project["version"],
        type=ComponentType.APPLICATION,
        bom_ref="evergrant",
        purl=PackageURL("pypi", name="evergrant", version=project["version"]),
        licenses=[LicenseFactory().make_from_string(project["license"])],
    )
    bom.metadata.component = ours
    components = [component(name, version, hashes) for name, version, hashes in pins(lock)]
    bom.components.update(components)
    direct = {canonicalize_name(re.split(r"[\[<>=;~ ]", text, maxsplit=1)[0]) for text in project["dependencies"]}
    bom.register_dependency(ours, [one for one in components if one.name in direct])
    text = JsonV1Dot6(bom).output_as_string(indent=2) + "\n"
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem:
        raise SystemExit(f"the bill of materials is not valid: {problem}")
    return text


def pins(lock: str) -> list[tuple[str, str, list[str]]]:
    """Return name, version and SHA-256 hashes of each package that a lock installs in the image."""
    found: list[tuple[str, str, list[str]]] = []
    counts = False
    for line in lock.splitlines():
        if pin := _PIN.match(line):
            counts = pin["marker"] is None or Marker(pin["marker"]).evaluate(IN_THE_IMAGE)
            if counts:
                found.append((pin["name"], pin["version"], []))
        elif counts and (digest := re.search(r"--hash=sha256:([0-9a-f]{64})", line)):
            found[-1][2].append(digest[1])
    return found


def component(name: str, version: str, hashes: list[str]) -> Component:
    """Return what the document says of one package."""
    installed = metadata.distribution(name)
    if installed.version != version:
        raise SystemExit(f"{name} is installed as {installed.version}, and locked as {version}: run make")
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=f"{name}=={version}",
        purl=PackageURL("pypi", name=name, version=version),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in sorted(hashes)],
        licenses=[LicenseFactory().make_from_string(text)] if (text := licence(installed)) else [],
    )


def licence(installed: metadata.Distribution) -> str:
    """Return a package's licence in its own words: the expression, else the first line, else the classifiers."""
    told = installed.metadata
    said = [*told.get_all("License-Expression", []), *told.get_all("License", [])]
    first_lines = [text.strip().partition("\n")[0] for text in said]
    classifiers = told.get_all("Classifier", [])
    classified = [text.rpartition(" :: ")[2] for text in classifiers if text.startswith("License :: ")]
    return next(filter(None, first_lines), " OR ".join(classified))


if __name__ == "__main__":
    sys.exit(main())
