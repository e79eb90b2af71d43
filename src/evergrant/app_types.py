"""How an app comes to what it hands out: somebody consents, somebody uploads, or evergrant obtains tokens by itself."""

from enum import StrEnum


class AppType(StrEnum):
    """The kinds of apps, as the wire and the app library call them."""

    OAUTH = "oauth"
    """Somebody consents in the browser (RFC 6749 section 4.1)."""
    API_KEY = "apikey"
    """Each owner uploads a key, or several fields that belong together, and fetches get them back."""
    CLIENT_CREDENTIALS = "client_credentials"
    """Tokens for a client itself (RFC 6749 section 4.4): the app's, or one that each connection brings."""
    JWT_BEARER = "jwt_bearer"
    """Tokens for a signed assertion (RFC 7523 section 2.1): a service account, an impersonated user."""
    INSTALLATION = "installation"
    """Somebody installs the app at the provider, whose key then gets tokens for that installation."""
    SIGNED_JWT = "signed_jwt"
    """The tokens are JWTs that evergrant signs itself: nobody is asked."""
    LOGIN = "login"
    """Tokens, or sessions, for what a login call of the provider's own takes."""

    @property
    def in_words(self) -> str:
        """What a person calls the kind."""
        return _WORDS[self]

    @property
    def is_consented(self) -> bool:
        """Whether somebody connects it in the browser."""
        return self in (AppType.OAUTH, AppType.INSTALLATION)

    @property
    def is_obtained(self) -> bool:
        """Whether evergrant obtains every token anew from credentials that stay: there is no refresh token to lose."""
        return self not in (AppType.OAUTH, AppType.API_KEY)


_WORDS = {
    AppType.OAUTH: "OAuth consent",
    AppType.API_KEY: "API key",
    AppType.CLIENT_CREDENTIALS: "client credentials",
    AppType.JWT_BEARER: "service account",
    AppType.INSTALLATION: "app installation",
    AppType.SIGNED_JWT: "signed token",
    AppType.LOGIN: "login",
}
