"""The license call: SDKs make it when they are constructed."""

from fastapi import Depends
from pydantic import Field

from evergrant.web.api.wire import WireModel, errors, example
from evergrant.web.deps import principal_of
from evergrant.web.routing import ApiRouter

router = ApiRouter(prefix="/v1/mgmt", tags=["license"])


class LicenseAnswer(WireModel):
    """What the vendor's cloud would sell."""

    model_config = example({"rateLimitTier": "tier4"})

    rate_limit_tier: str = Field(description="Always the highest: evergrant has no tiers.")


@router.get("/license", summary="The rate limit tier", responses=errors(), dependencies=[Depends(principal_of)])
async def load_rate_limit_tier() -> LicenseAnswer:
    """Answer the handshake, and tell whether the key is good."""
    return LicenseAnswer(rate_limit_tier="tier4")
