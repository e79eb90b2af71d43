"""Catalogue entries as a reader of docs/catalogue.md reads the files, moved to loopback for a test.

Nothing of evergrant's own reading is used: what a provider is expected to want must not come from what is tested.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

FILES = Path(__file__).parents[2] / "src" / "evergrant" / "catalog" / "providers"
NAME = re.compile(r"\{([A-Za-z][A-Za-z0-9_]*)\}")
Entry = dict[str, Any]


def read_entries() -> dict[str, Entry]:
    """Return every entry by id, with what it inherits from its file."""
    return dict(sorted((entry["id"], entry) for path in FILES.glob("*.toml") for entry in _of_file(path)))


def _of_file(path: Path) -> Iterator[Entry]:
    shared = tomllib.loads(path.read_text(encoding="utf-8"))
    family = shared.pop("templates", None)
    if family is None:
        yield {"id": path.stem, **shared}
        return
    for own in family:
        entry = joined(shared, own)
        if "variables" in entry:  # one that is replaced by "" is gone
            entry["variables"] = {name: variable for name, variable in entry["variables"].items() if variable}
        yield entry


def joined(below: Entry, above: Entry) -> Entry:
    """Lay a table over another: tables are joined key by key, all else is replaced."""
    both = dict(below)
    for key, value in above.items():
        both[key] = joined(below[key], value) if isinstance(value, dict) and key in below else value
    return both


def oauth_entries() -> dict[str, Entry]:
    """Return the entries at which somebody consents, and that are not gone."""
    return {
        key: entry
        for key, entry in read_entries().items()
        if entry.get("app_type", "oauth") == "oauth" and not is_gone(entry)
    }


def entries_of_other_kinds() -> dict[str, Entry]:
    """Return the entries at which nobody consents in the usual way: keys, clients, service accounts, installations."""
    return {key: entry for key, entry in read_entries().items() if entry.get("app_type", "oauth") != "oauth"}


def is_gone(entry: Entry) -> bool:
    """Tell whether the provider has ended all that an entry is about."""
    return any("field" not in each and each["on"] <= datetime.now(UTC).date() for each in entry.get("retires", []))


def moved(entry: Entry, base: str) -> Entry:
    """Return an entry whose every `https://HOST/path` is `BASE/HOST/path`; its variables stay."""

    def there(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: there(item) for key, item in value.items()}
        if isinstance(value, list):
            return [there(item) for item in value]
        return value.replace("https://", f"{base}/") if isinstance(value, str) else value

    addresses = {key for key in entry if key.endswith("_endpoint") or key in ("issuer", "jwks_uri")}
    result = {key: there(value) if key in addresses else value for key, value in entry.items()}
    for key in ("context_request", "revocation"):
        if key in entry:
            result[key] = {**entry[key], "url": there(entry[key]["url"])}
    if "login" in entry:
        result["login"] = [{**step, "url": there(step["url"])} for step in entry["login"]]
    if "installation_check" in entry:
        result["installation_check"] = there(entry["installation_check"])
    if "api" in entry:
        own = {key: there(entry["api"][key]) for key in ("base_url", "further", "check") if key in entry["api"]}
        result["api"] = {**entry["api"], **own}
    if "token_exchange" in entry:
        result["token_exchange"] = [{**step, "url": there(step["url"])} for step in entry["token_exchange"]]
    variables = entry.get("variables", {})
    origins = {name for name, variable in variables.items() if "https://" in variable.get("pattern", "")}
    if origins:  # a variable that holds a whole origin moves too
        result["variables"] = {n: there(v) if n in origins else v for n, v in variables.items()}
    return result


def as_toml(entry: Entry) -> str:
    """Write an entry as a file of an operator's own folder; its name must be the id."""
    return "".join(f"{_toml(key)} = {_toml(value)}\n" for key, value in entry.items() if key != "id")


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, date):
        return value.isoformat()
    return json.dumps(value)  # TOML's basic strings, numbers and booleans are JSON's


def fill(text: str, *values: Mapping[str, str]) -> str:
    """Fill the `{names}` that are known."""
    known = {name: value for mapping in reversed(values) for name, value in mapping.items()}
    return NAME.sub(lambda found: known.get(found[1], found[0]), text)


def as_texts(table: Mapping[str, Any]) -> dict[str, str]:
    """Return parameters as they are sent: numbers and booleans as text; those that are replaced by "" are not sent."""
    shown = {k: str(v).lower() if isinstance(v, bool) else str(v) for k, v in table.items()}
    return {name: value for name, value in shown.items() if value}


def sample(name: str, variable: Mapping[str, Any], base: str) -> str:
    """Return a value that a variable may have, and that is not its default where there is another."""
    if variable.get("example"):
        return str(variable["example"])
    if variable.get("enum"):
        return str(variable["enum"][-1])
    if variable.get("default") and variable.get("source", "app") in ("app", "user"):
        return str(variable["default"])
    pattern = variable.get("pattern", "")
    words = ["4242", f"a-{name}", "0123abcd-0000-4000-8000-00000000abcd", f"{base}/accounts.zoho.eu"]
    usable = [word for word in words if not pattern or re.fullmatch(pattern, word)]
    number = name.lower().endswith("id")
    return usable[0] if number or len(usable) == 1 else usable[1]
