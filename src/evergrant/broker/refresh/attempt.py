"""One refresh under way: what it needs, put together once and handed from step to step."""

from dataclasses import dataclass

from evergrant.broker.apps.provider_client import ProviderClient
from evergrant.broker.refresh.lease import LeasedGrant
from evergrant.broker.runtime.endpoints import Endpoint
from evergrant.db import OutboundApp


@dataclass(frozen=True, slots=True)
class RefreshAttempt:
    """A leased grant with its app, its provider and the token endpoint that will be called."""

    leased: LeasedGrant
    app: OutboundApp
    provider: ProviderClient
    endpoint: Endpoint
