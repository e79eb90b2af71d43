"""Providers' words, made safe."""

from evergrant.oauth2.provider_text import provider_text


def test_control_and_direction_characters_go_and_lines_become_one() -> None:
    assert provider_text("a\x00b\x1b[31m\r\nc\u202ed\u200b  e\x7f") == "ab[31m cd e"


def test_a_long_text_is_cut_at_300_characters() -> None:
    text = provider_text("x" * 1000)
    assert len(text) == 300
    assert text.endswith("…")


def test_what_is_not_text_is_nothing() -> None:
    assert provider_text(None) == provider_text(5) == provider_text(["a"]) == ""


def test_our_secrets_are_redacted_also_encoded_interrupted_or_at_the_cut() -> None:
    secrets = ("s3cret/+value", "s3cret/+value-longer")
    assert provider_text("got s3cret/+value.", secrets=secrets) == "got [redacted]."
    assert provider_text("got s3cret%2F%2Bvalue.", secrets=secrets) == "got [redacted]."
    assert provider_text("got s3cr\x00et/+value.", secrets=secrets) == "got [redacted]."
    assert provider_text("got s3cret/+value-longer.", secrets=secrets) == "got [redacted]."
    assert "s3c" not in provider_text("x" * 295 + "s3cret/+value", secrets=secrets)


def test_an_empty_secret_redacts_nothing() -> None:
    assert provider_text("abc", secrets=("",)) == "abc"
