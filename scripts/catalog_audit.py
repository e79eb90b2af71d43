"""Compares the app library with what public packages say: `make catalog-audit`.

The packages are downloaded with the machine's own pip and npm into a temporary folder, read in memory, and never run.
Nothing of them is kept: `scripts/catalog_audit.json` has, for each entry, who agrees and which fields are said
otherwise, and docs/providers.md is written anew with it.
"""

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from evergrant.catalog.loader import load_catalogue
from evergrant.catalog.template import Template
from scripts import provider_table
from scripts.audit.apis import ApiFinding, compare_apis
from scripts.audit.claims import Claim
from scripts.audit.compare import Difference, Finding, compare, same_url
from scripts.audit.sources import OUT_OF_REACH, SOURCES, claims_of, fetch, version_of
from scripts.provider_table import RESULT

REVIEW_EVERY = timedelta(days=365)


def main() -> int:
    """Fetch, compare, print and keep the result.

    Return 1 if a confirmed entry stands alone against its sources, or nobody has looked at an entry for a year.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--cache", type=Path, help="keep the packages here, and use those that are there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="evergrant-audit-") as temporary:
        versions, claims = _read(options.cache or Path(temporary))
    templates = load_catalogue()
    found, apis = compare(templates, claims), compare_apis(templates, claims)
    RESULT.write_text(json.dumps(result_of(versions, found, apis), indent=1) + "\n", encoding="utf-8")
    provider_table.main()
    whole = {key: _whole(found.get(key), apis.get(key)) for key in templates}
    print(json.dumps(whole, indent=1) if options.json else f"{report(found)}\n\nAPIs\n{report_of_apis(apis)}")
    alone = alone_of(templates, found)
    alone += [f"{key} (its API)" for key in apis_alone_of(templates, apis)]
    stale = stale_of(templates, today=datetime.now(UTC).date())
    print(f"{summary(found)}\n{summary_of_apis(apis)}\nThe result is kept in {RESULT.name}", file=sys.stderr)
    if alone:
        print(f"confirmed, but no source agrees: {', '.join(alone)}", file=sys.stderr)
    if stale:
        print(f"nobody has read the provider's own pages for a year: {', '.join(stale)}", file=sys.stderr)
    return 1 if alone or stale else 0


def alone_of(templates: Mapping[str, Template], found: Mapping[str, Finding]) -> list[str]:
    """Return the confirmed entries that packages know, all of them with other endpoints than ours or those that end."""
    return [
        key
        for key, one in found.items()
        if one.is_alone
        and templates[key].verification == "confirmed"
        and not all(_ends(each, templates[key]) for each in one.endpoints)
    ]


def apis_alone_of(templates: Mapping[str, Template], found: Mapping[str, ApiFinding]) -> list[str]:
    """Return the entries whose base is confirmed, and that packages know with bases of other owners' domains only."""
    return [key for key, one in found.items() if one.is_foreign and templates[key].api.verification == "confirmed"]


def _ends(difference: Difference, entry: Template) -> bool:
    """Tell whether a package only has not followed yet: the entry says itself that this address ends."""
    return any(each.field == difference.field and same_url(each.value, difference.theirs) for each in entry.retires)


def stale_of(templates: Mapping[str, Template], *, today: date) -> list[str]:
    """Return the entries that are to be held against their provider's own pages again.

    Packages cannot tell that a provider has gone, or that an address ends: they keep what they have.
    """
    return [key for key, one in templates.items() if one.reviewed is None or today - one.reviewed > REVIEW_EVERY]


def result_of(
    versions: Mapping[str, str], found: Mapping[str, Finding], apis: Mapping[str, ApiFinding]
) -> dict[str, object]:
    """Return what is kept of an audit: facts about our entries, and nothing of the packages' tables."""
    entries = {
        key: {
            "agree": sorted(one.agreeing),
            "differ": {name: sorted(who) for name, who in sorted(_by_field([*one.endpoints, *one.habits]).items())},
        }
        for key, one in sorted(found.items())
    }
    of_apis = {
        key: {
            "agree": sorted(one.agreeing),
            "differ": {name: sorted(who) for name, who in sorted(_by_field(one.differing).items())},
        }
        for key, one in sorted(apis.items())
    }
    date = datetime.now(UTC).date().isoformat()
    return {"date": date, "packages": versions, "entries": entries, "apis": of_apis}


def report(found: Mapping[str, Finding]) -> str:
    """Return the findings as text, an entry after the other."""
    lines: list[str] = []
    for key, one in found.items():
        lines.append(f"{key}: {len(one.agreeing)} agree: {', '.join(sorted(one.agreeing)) or 'none'}")
        differences = (*one.endpoints, *one.habits)
        lines += (f"    {each.field}: ours {each.ours!r}, {each.source} {each.theirs!r}" for each in differences)
    return "\n".join(lines)


def report_of_apis(found: Mapping[str, ApiFinding]) -> str:
    """Return what packages say of the entries' APIs as text."""
    lines: list[str] = []
    for key, one in found.items():
        lines.append(f"{key}: {len(one.agreeing)} agree: {', '.join(sorted(one.agreeing)) or 'none'}")
        lines += (f"    {each.field}: ours {each.ours!r}, {each.source} {each.theirs!r}" for each in one.differing)
    return "\n".join(lines)


def summary_of_apis(found: Mapping[str, ApiFinding]) -> str:
    """Return the numbers about APIs."""
    two = sum(len(one.agreeing) >= 2 for one in found.values())
    one_only = sum(len(one.agreeing) == 1 for one in found.values())
    bases = [each for one in found.values() for each in one.differing if each.field == "api.base_url"]
    places = [each for one in found.values() for each in one.differing if each.field != "api.base_url"]
    return (
        f"{len(found)} bases of APIs: {two} with two or more agreeing packages, {one_only} with one, "
        f"{sum(one.is_alone for one in found.values())} with another base only; "
        f"{len(bases)} bases and {len(places)} places of the credential are said otherwise by some package."
    )


def summary(found: Mapping[str, Finding]) -> str:
    """Return the numbers."""
    two = sum(len(one.agreeing) >= 2 for one in found.values())
    one_only = sum(len(one.agreeing) == 1 for one in found.values())
    unknown = sum(not one.agreeing and not one.endpoints for one in found.values())
    return (
        f"{len(found)} entries: {two} with two or more agreeing packages, {one_only} with one, "
        f"{sum(one.is_alone for one in found.values())} with other endpoints only, {unknown} that no package knows; "
        f"{sum(len(one.endpoints) for one in found.values())} endpoints and "
        f"{sum(len(one.habits) for one in found.values())} other facts are said otherwise by some package."
    )


def _read(folder: Path) -> tuple[dict[str, str], list[Claim]]:
    versions: dict[str, str] = {}
    claims: list[Claim] = []
    for source in SOURCES:
        found: list[Claim] = []
        for package, provider in source.names.items():
            archive = fetch(source.registry, package, folder)
            found += claims_of(source, archive, provider)
            versions[source.package] = version_of(archive) if not provider else f"({len(source.names)} packages)"
        claims += found
        print(f"{source.package} {versions[source.package]}: {len(found)} providers", file=sys.stderr)
    for name, why in OUT_OF_REACH.items():
        print(f"not read: {name} ({why})", file=sys.stderr)
    return versions, claims


def _by_field(differences: list[Difference]) -> dict[str, set[str]]:
    fields: dict[str, set[str]] = defaultdict(set)
    for each in differences:
        fields[each.field].add(each.source)
    return fields


def _whole(one: Finding | None, api: ApiFinding | None) -> dict[str, object]:
    whole: dict[str, object] = {}
    if one is not None:
        differences = [asdict(each) for each in [*one.endpoints, *one.habits]]
        whole |= {"agree": sorted(one.agreeing), "differences": differences}
    if api is not None:
        differences = [asdict(each) for each in api.differing]
        whole["api"] = {"agree": sorted(api.agreeing), "differences": differences}
    return whole


if __name__ == "__main__":
    sys.exit(main())
