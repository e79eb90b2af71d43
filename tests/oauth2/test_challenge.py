"""`WWW-Authenticate` as servers really write it: which metadata it names, and what only looks like it."""

import pytest

from evergrant.oauth2.challenge import read_challenge

ASKED = "https://h.example/mcp"
META = "https://h.example/meta"


@pytest.mark.parametrize(
    "header",
    [
        f'Bearer resource_metadata="{META}"',
        f'bearer error="invalid_token", RESOURCE_METADATA="{META}"',
        f"Bearer resource_metadata='{META}'",
        f"Bearer resource_metadata={META}",
        f"Bearer error=invalid_token, resource_metadata={META}",
        f"Bearer error=invalid_token,resource_metadata={META},scope=a",
        f'Bearer resource_metadata  =  "{META}"',
        f"Bearer resource_metadata\t=\t{META}",
        f'Basic realm="a, b", Bearer resource_metadata="{META}"',
        f'Bearer resource_metadata="{META}", Basic realm="x"',
        f'Negotiate abc==, DPoP algs="ES256", resource_metadata="{META}"',
        f'Bearer error_description="say \\"resource_metadata=\\"", resource_metadata="{META}"',
        f'Bearer error_description="no resource_metadata=\'https://evil.example\' here", resource_metadata="{META}"',
        f'Bearer error_description="it\'s gone", resource_metadata="{META}"',
        f'Bearer realm="OAuth" error="invalid_token" resource_metadata="{META}"',
        f"Bearer error_description=The token is missing, resource_metadata={META}",
        'Bearer resource_metadata="/meta"',
        "Bearer resource_metadata=meta",
        'Bearer resource_metadata="https:\\/\\/h.example\\/meta"',
        f'Bearer resource_metadata="", Bearer resource_metadata="{META}"',
    ],
)
def test_the_metadata_is_found(header: str) -> None:
    assert read_challenge(header, ASKED).metadata_url == META


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        'Bearer realm="resource_metadata=https://evil.example"',
        "Bearer realm='a resource_metadata=https://evil.example'",
        'Bearer x_resource_metadata="https://evil.example"',
        'Bearer resource_metadata_uri="https://evil.example"',
        "Bearer resource_metadata",
        "Bearer resource_metadata=https://[evil.example",
    ],
)
def test_there_is_none_where_none_is_named(header: str) -> None:
    assert read_challenge(header, ASKED).metadata_url == ""


def test_the_scopes_are_those_of_the_challenge_that_names_the_metadata() -> None:
    header = f'Basic realm="x", scope="other", Bearer scope="read  write read", resource_metadata="{META}"'
    assert read_challenge(header, ASKED).scopes == ("read", "write")
    assert read_challenge('Bearer scope="read"', ASKED).scopes == ("read",)
