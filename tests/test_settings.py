"""Settings: what is refused at start, and what a secret does when it is printed."""

from pathlib import Path

import pytest

from evergrant.errors import ConfigurationError
from evergrant.settings import SECRETS, Settings, load_settings


def test_nothing_has_to_be_set() -> None:
    settings = load_settings()
    assert settings.uses_sqlite
    assert settings.is_loopback_trial
    assert settings.egress_allow == ()


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8420", "http://localhost:1", "http://[::1]:8420", "https://e.example/"]
)
def test_a_public_url_is_an_origin(url: str) -> None:
    assert Settings(public_url=url).public_url == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "http://evergrant.example.com",
        "http://10.0.0.1:8420",
        "http://localhost.example.com",
        "https://e.example/path",
        "https://e.example?x=1",
        "https://e.example/#x",
        "https://user@e.example",
        "ftp://e.example",
        "https://",
        "e.example",
        "",
    ],
)
def test_anything_else_is_refused_with_the_variables_name(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("EVERGRANT_PUBLIC_URL", url)
    with pytest.raises(ConfigurationError, match="EVERGRANT_PUBLIC_URL"):
        load_settings()


def test_every_wrong_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGRANT_PUBLIC_URL", "x")
    monkeypatch.setenv("EVERGRANT_EGRESS_ALLOW", "10.0.0.1/8")
    with pytest.raises(ConfigurationError) as error:
        load_settings()
    assert "EVERGRANT_PUBLIC_URL" in error.value.message
    assert "EVERGRANT_EGRESS_ALLOW" in error.value.message
    assert "10.0.0.0/8, separated by commas" in error.value.message


def test_a_switch_and_a_number_say_what_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGRANT_HOT_SET", "maybe")
    monkeypatch.setenv("EVERGRANT_IDLE_AFTER_DAYS", "30d")
    with pytest.raises(ConfigurationError) as error:
        load_settings()
    assert "EVERGRANT_HOT_SET: write true or false" in str(error.value)
    assert "EVERGRANT_IDLE_AFTER_DAYS: write a whole number, without a unit" in str(error.value)


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGRANT_EGRESS_ALLOW", "10.0.0.0/8, fd00::/8,")
    monkeypatch.setenv("EVERGRANT_BOOTSTRAP_REDIRECT_ORIGINS", "https://a.example, https://b.example")
    settings = load_settings()
    assert [str(network) for network in settings.egress_allow] == ["10.0.0.0/8", "fd00::/8"]
    assert settings.bootstrap_redirect_origins == ("https://a.example", "https://b.example")


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_comes_from_a_file_without_its_line_break_and_does_not_print(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    file = tmp_path / "secret"
    file.write_text("the-planted-secret\n")
    monkeypatch.setenv(f"EVERGRANT_{name.upper()}_FILE", str(file))
    if name == "bootstrap_management_key":
        monkeypatch.setenv("EVERGRANT_BOOTSTRAP_PROJECT_ID", "shop")
    if name == "database_read_url":
        monkeypatch.setenv("EVERGRANT_DATABASE_URL", "postgresql://one/evergrant")
    settings = load_settings()
    assert getattr(settings, name).get_secret_value() == "the-planted-secret"
    assert "the-planted-secret" not in f"{settings} {settings!r} {settings.model_dump_json()}"


def test_a_read_replica_is_of_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGRANT_DATABASE_READ_URL", "postgresql://two/evergrant")
    with pytest.raises(ConfigurationError, match="EVERGRANT_DATABASE_READ_URL is for a standby of PostgreSQL"):
        load_settings()


def test_the_bootstrap_project_and_its_key_are_set_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGRANT_BOOTSTRAP_MANAGEMENT_KEY", "planted-secret")
    with pytest.raises(ConfigurationError, match="together") as error:
        load_settings()
    assert "planted-secret" not in error.value.message


@pytest.mark.parametrize("token", ["short", "fifteen-letters", "with spaces in between", "nicht-für-kopfzeilen"])
def test_a_metrics_token_is_long_and_fits_into_a_header(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("EVERGRANT_METRICS_TOKEN", token)
    with pytest.raises(ConfigurationError, match="EVERGRANT_METRICS_TOKEN: use 16 or more") as raised:
        load_settings()
    assert token not in str(raised.value)


def test_a_metrics_token_that_is_set_to_nothing_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGRANT_METRICS_TOKEN", "")
    assert load_settings().metrics_token is None


@pytest.mark.parametrize("everybody", ["*", "127.0.0.1,*", "0.0.0.0/0", "::/0", "0.0.0.0/1,128.0.0.0/1", "the proxy"])
def test_proxies_that_could_be_anybody_are_refused(monkeypatch: pytest.MonkeyPatch, everybody: str) -> None:
    monkeypatch.setenv("EVERGRANT_TRUSTED_PROXIES", everybody)
    with pytest.raises(ConfigurationError, match=r"^EVERGRANT_TRUSTED_PROXIES: .*10\.0\."):
        load_settings()


@pytest.mark.parametrize("own", ["127.0.0.1", "10.0.0.0/8, 172.18.0.1", "fc00::/7,::1", ""])
def test_proxies_of_ones_own_are_trusted(monkeypatch: pytest.MonkeyPatch, own: str) -> None:
    monkeypatch.setenv("EVERGRANT_TRUSTED_PROXIES", own)
    assert load_settings().trusted_proxies == own
