"""An authorization server (RFC 8414) and our client there (RFC 7591), as two frozen values."""

from dataclasses import dataclass

from pydantic import SecretStr


@dataclass(frozen=True, slots=True)
class ServerMetadata:
    """An authorization server, in the words of RFC 8414 section 2. An empty string means: it has none."""

    issuer: str = ""
    authorization_endpoint: str = ""
    token_endpoint: str = ""
    revocation_endpoint: str = ""
    userinfo_endpoint: str = ""
    jwks_uri: str = ""
    registration_endpoint: str = ""
    token_endpoint_auth_methods_supported: tuple[str, ...] = ()
    authorization_response_iss_parameter_supported: bool = False
    client_id_metadata_document_supported: bool = False
    """A client may be known by the URL of its own metadata (draft-ietf-oauth-client-id-metadata-document)."""


@dataclass(frozen=True, slots=True)
class ClientRegistration:
    """A client registered at an authorization server.

    `auth_method` is `client_secret_post`, `client_secret_basic`, `none`, `private_key_jwt` or `client_secret_jwt`
    (RFC 7591 section 2). `authorization_params` and `token_params` are the app's own additions to the
    requests; they never replace what the protocol sets. `name` is what a person calls the app: error messages
    begin with it. `signing_key` signs assertions that stand for a grant (RFC 7523 section 2.1).
    """

    client_id: str
    client_secret: SecretStr | None
    auth_method: str
    authorization_params: tuple[tuple[str, str], ...] = ()
    token_params: tuple[tuple[str, str], ...] = ()
    pkce: bool = True
    access_type: str = ""
    name: str = ""
    signing_key: SecretStr | None = None
