"""Lints the Helm chart, renders it with each file in its `ci` folder, and holds what comes to Kubernetes' own schemas.

A part of `make check`. The real helm does the first two; kubernetes-validate has the schemas, so no network is needed.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it has no types
import yaml

CHART = Path(__file__).parents[1] / "deploy/helm/evergrant"
HELM = Path(sys.executable).with_name("helm")
KUBERNETES = ("1.27.0", "1.37.0")
"""The oldest that the chart takes, and the newest that there is a schema of."""
OF_THE_OPERATOR = {"ServiceMonitor", "PrometheusRule"}
"""Kinds that the Prometheus operator adds, of which Kubernetes has no schema."""


class Wrong(Exception):
    """What helm or a schema has against the chart."""


def main() -> int:
    """Check all, print a line for each file of values, and return the exit code."""
    failed = False
    for values in sorted((CHART / "ci").glob("*-values.yaml")):
        try:
            helm("lint", "--strict", "--values", str(values))
            objects = list(render(values))
            problems = [problem for one in objects for problem in problems_of(one)]
        except Wrong as wrong:
            problems = [str(wrong)]
        failed = failed or bool(problems)
        print("\n".join(problems) or f"helm: {len(objects)} objects with {values.name}, as Kubernetes has them")
    return int(failed)


def render(values: Path, *options: str) -> Iterator[dict[str, Any]]:
    """Yield the objects that the chart makes with these values.

    Raises:
        Wrong: helm refuses the values, or a template cannot be filled in.
    """
    text = helm(
        "template", "--name-template", "evergrant", "--namespace", "evergrant", "--values", str(values), *options
    )
    yield from (one for one in yaml.safe_load_all(text) if one)


def problems_of(one: dict[str, Any]) -> list[str]:
    """Return what the schema of an object's kind has against it; names that it does not know are wrong too."""
    if one["kind"] in OF_THE_OPERATOR:
        return []
    problems = []
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(one, version, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            problems.append(f"{one['kind']} {one['metadata']['name']}, Kubernetes {version}: {error.message}")
    return problems


def helm(verb: str, *words: str) -> str:
    """Run a verb of helm on the chart, and return what it prints.

    Raises:
        Wrong: with what helm says.
    """
    ran = subprocess.run([HELM, verb, CHART, *words], capture_output=True, text=True, timeout=60, check=False)
    if ran.returncode:
        raise Wrong(f"{ran.stdout}{ran.stderr}")
    return ran.stdout


if __name__ == "__main__":
    sys.exit(main())
