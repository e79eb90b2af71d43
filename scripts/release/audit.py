"""Asks whether what the locks install has a known vulnerability: `make audit`, and a part of `make check`.

pip-audit does the asking, of OSV. Where that cannot be reached, one line says so, and nothing fails or hangs: a
checkout has to be checked without a network too.
"""

import argparse
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-build.lock")
"""What an installation runs, and what builds it. Tools of the tests never meet anybody's data."""
IGNORED = Path(__file__).with_name("ignored.toml")
OSV = "https://api.osv.dev/v1/query"
SECONDS_PER_ANSWER = 5
MOST_SECONDS = 120
SKIPPED = "pip-audit: skipped, its source cannot be reached"

_UNREACHABLE = ("requests.exceptions.", "Could not connect to OSV")
"""How pip-audit ends when the network is in the way: no name, no connection, no answer, or a proxy's page."""


def main(arguments: list[str] | None = None) -> int:
    """Ask, print what was found, and return 1 for anything that is neither clean, ignored for a reason nor offline."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--osv-url", default=OSV, help="another source that speaks OSV's API")
    parser.add_argument("--ignored", type=Path, default=IGNORED, help="the vulnerabilities that do not count, and why")
    options = parser.parse_args(arguments)
    ignored = reasons(tomllib.loads(options.ignored.read_text()))
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--strict", "--format", "json"]
    command += ["--progress-spinner", "off", "--timeout", str(SECONDS_PER_ANSWER)]
    command += ["--vulnerability-service", "osv", "--osv-url", options.osv_url]
    command += [word for lock in LOCKS for word in ("--requirement", str(ROOT / lock))]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        print(SKIPPED)
        return 0
    try:
        report = json.loads(ran.stdout)
    except ValueError:
        if any(sign in ran.stderr for sign in _UNREACHABLE):
            print(SKIPPED)
            return 0
        print(ran.stderr, file=sys.stderr)
        return 1
    return verdict(report, ignored)


def reasons(listed: dict[str, Any]) -> dict[str, str]:
    """Return the reason of each vulnerability that is ignored, by its id.

    Raises:
        SystemExit: One has no reason.
    """
    without = [entry.get("id") for entry in listed.get("ignored", []) if not entry.get("reason", "").strip()]
    if without:
        raise SystemExit(f"pip-audit: say in {IGNORED.name} why these are ignored: {without}")
    return {entry["id"]: entry["reason"] for entry in listed.get("ignored", [])}


def verdict(report: dict[str, Any], ignored: dict[str, str]) -> int:
    """Print what counts of pip-audit's report, and return the exit code."""
    found = [(package, v) for package in report["dependencies"] for v in package.get("vulns", [])]
    names = {name for _, v in found for name in (v["id"], *v["aliases"])}
    counting = [(p, v) for p, v in found if not {v["id"], *v["aliases"]} & ignored.keys()]
    for package, v in counting:
        mended = ", ".join(v["fix_versions"]) or "no release"
        print(f"pip-audit: {package['name']} {package['version']} has {v['id']}, mended in {mended}", file=sys.stderr)
    gone = sorted(ignored.keys() - names)
    if gone:
        print(f"pip-audit: nothing has these any more, take them out of {IGNORED.name}: {gone}", file=sys.stderr)
    if counting or gone:
        return 1
    print(f"pip-audit: {len(report['dependencies'])} packages, none with a known vulnerability that counts")
    return 0


if __name__ == "__main__":
    sys.exit(main())
