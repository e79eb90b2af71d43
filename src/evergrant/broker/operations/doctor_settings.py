"""What the settings alone tell: what is allowed, and unwise."""

import re
from collections.abc import Iterator

from evergrant.broker.operations.doctor_finding import Finding, todo
from evergrant.networks import parse_networks
from evergrant.settings import Settings, unknown_variables
from evergrant.tracing import tracing_problem, wants_traces

WIDE_PREFIX = {4: 16, 6: 48}
"""A network of proxies has so many bits or more where somebody thought about it."""
GUESSED = re.compile(r"change|example|secret|password|default|test|key-of|(.)\1{7}|12345", re.IGNORECASE)
FEWEST_LETTERS = 12


def examine_settings(settings: Settings) -> Iterator[Finding]:
    """Look at the settings, and at variables that are none."""
    yield from _unknown_variables()
    yield _bootstrap_key(settings)
    yield _proxies(settings)
    yield _egress(settings)
    yield _console(settings)
    yield _metrics(settings)
    yield _limits(settings)
    yield _retention(settings)
    yield _log(settings)
    yield _traces()


def _unknown_variables() -> Iterator[Finding]:
    for name, meant in unknown_variables().items():
        hint = f"did you mean {meant}?" if meant else "take it out"
        yield todo("variables", f"{name} is no setting, so nobody heeds it: {hint}")


def _bootstrap_key(settings: Settings) -> Finding:
    key = settings.bootstrap_management_key
    if key is None:
        return Finding("bootstrap key", True, "none")
    text = key.get_secret_value()
    if GUESSED.search(text) or len(set(text)) < FEWEST_LETTERS:
        remedy = "make a random one ('openssl rand -base64 32'), set EVERGRANT_BOOTSTRAP_MANAGEMENT_KEY and restart"
        return Finding("bootstrap key", False, f"it can be guessed, and opens everything: {remedy}")
    return Finding("bootstrap key", True, f"one, for project {settings.bootstrap_project_id}")


def _proxies(settings: Settings) -> Finding:
    from_text = settings.trusted_proxies
    wide = [one for one in parse_networks(from_text) if one.prefixlen < WIDE_PREFIX[one.version]]
    if wide:
        text = f"{', '.join(map(str, wide))} is wide: everybody in it can choose its address. Name the proxies alone"
        return todo("trusted proxies", f"{text} in EVERGRANT_TRUSTED_PROXIES")
    if not settings.is_loopback_trial and from_text == "127.0.0.1":
        text = "127.0.0.1 only: where the proxy is on another machine, set EVERGRANT_TRUSTED_PROXIES to its address, or"
        return todo("trusted proxies", f"{text} all callers look like one")
    return Finding("trusted proxies", True, from_text)


def _egress(settings: Settings) -> Finding:
    opened = ", ".join(str(network) for network in settings.egress_allow)
    remedy = "open the addresses of your own providers alone in EVERGRANT_EGRESS_ALLOW"
    if any(network.prefixlen == 0 for network in settings.egress_allow):
        return Finding("egress", False, f"everything is open, metadata services of clouds too: {remedy}")
    risky = [one for one in settings.egress_allow if one.is_loopback or one.is_link_local]
    if risky and not settings.is_loopback_trial:
        text = f"{', '.join(map(str, risky))} is open, so whoever makes an app reaches this machine by it"
        return todo("egress", f"{text}: {remedy}")
    return Finding("egress", True, f"providers may also be in {opened}" if opened else "public addresses only")


def _console(settings: Settings) -> Finding:
    if not settings.console:
        return Finding("console", True, "off")
    if settings.is_loopback_trial or settings.console_networks:
        return Finding("console", True, "on")
    text = "its sign-in is open to everybody: name your networks in EVERGRANT_CONSOLE_NETWORKS"
    if settings.console_key_sign_in and settings.console_oidc_issuer:
        text += ", and set EVERGRANT_CONSOLE_KEY_SIGN_IN=false, so that your identity provider is the only way in"
    return todo("console", text)


def _metrics(settings: Settings) -> Finding:
    if settings.metrics_token is not None:
        return Finding("metrics", True, "for those who have the token")
    if settings.is_loopback_trial:
        return Finding("metrics", True, "for this machine only")
    text = "for this machine only, and for whatever a proxy on it passes on: set EVERGRANT_METRICS_TOKEN"
    return todo("metrics", text)


def _limits(settings: Settings) -> Finding:
    names = [name for name in Settings.model_fields if name.startswith(("rate_limit_", "calls_at_once", "connects_"))]
    off = [f"EVERGRANT_{name.upper()}" for name in names if getattr(settings, name) == 0]
    if off:
        return todo("limits", f"{', '.join(off)}: 0 is no limit, so one caller can take everything: set some number")
    return Finding("limits", True, "set")


def _retention(settings: Settings) -> Finding:
    names = ("audit_retention_days", "call_retention_days")
    endless = [f"EVERGRANT_{name.upper()}" for name in names if getattr(settings, name) == 0]
    if endless:
        return todo("retention", f"{', '.join(endless)} is 0, so it grows without an end: set days, or watch the disk")
    return Finding("retention", True, "set")


def _log(settings: Settings) -> Finding:
    if settings.log_level == "debug" and not settings.is_loopback_trial:
        return todo("log", "EVERGRANT_LOG_LEVEL=debug writes a line for each call of an API: set info")
    return Finding("log", True, f"{settings.log_level}, as {settings.log_format}")


def _traces() -> Finding:
    if problem := tracing_problem():
        return Finding("traces", False, problem)
    return Finding("traces", True, "on" if wants_traces() else "off")
