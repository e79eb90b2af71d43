"""Small pure functions for what no field of the catalogue can say about a provider, by their names in it.

Each gets the client as the app has it, the variables' values and the moment, and returns the client as the provider
wants to see it. Add one only where no field of the catalogue can do; name it in `HookName`,
document it in docs/catalogue.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Literal

from pydantic import SecretStr

from evergrant.oauth2.client_assertion import sign
from evergrant.oauth2.registration import ClientRegistration

HookName = Literal["apple_client_secret"]
"""How a catalogue entry names one. `apple_client_secret`: the secret is a key that signs a short-lived ES256 JWT."""
Hook = Callable[[ClientRegistration, Mapping[str, str], datetime], ClientRegistration]

APPLE_LIFETIME = timedelta(minutes=10)
"""Apple allows six months; one is made for every request, so it need not outlive it."""


def apple_client_secret(client: ClientRegistration, variables: Mapping[str, str], now: datetime) -> ClientRegistration:
    """Make the client secret of Sign in with Apple: a JWT, signed by the private key (.p8) that is the app's secret.

    The entry has the variables `team_id` and `key_id`.
    https://developer.apple.com/documentation/accountorganizationaldatasharing/creating-a-client-secret

    Raises:
        UpstreamRejected: the secret is no such key.
    """
    if client.client_secret is None:
        return client
    claims = {
        "iss": variables.get("team_id", ""),
        "sub": client.client_id,
        "aud": "https://appleid.apple.com",
        "iat": int(now.timestamp()),
        "exp": int((now + APPLE_LIFETIME).timestamp()),
    }
    token = sign(client.client_secret, claims, alg="ES256", kid=variables.get("key_id", ""), who=client.name)
    return replace(client, client_secret=SecretStr(token))


HOOKS: Mapping[str, Hook] = {"apple_client_secret": apple_client_secret}
"""Every hook. The only place besides the catalogue that knows providers by name."""
