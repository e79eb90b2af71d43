"""The one part of this server that a trial may call although loopback is closed: its practice provider."""

import pytest

from evergrant.errors import EgressRefused
from evergrant.oauth2.egress import OwnPlace, check_url
from evergrant.oauth2.transport import open_http

PLACE = OwnPlace("127.0.0.1", 8420, "/practice/")
ELSEWHERE = [
    "http://127.0.0.1:8420/v1/mgmt/outbound/apps",
    "http://127.0.0.1:8420/practiced",
    "http://127.0.0.1:8420/practice/../metrics",
    "http://127.0.0.1:8420/practice/%2e%2e/metrics",
    "http://127.0.0.1:8421/practice/token",
    "http://127.0.0.2:8420/practice/token",
    "http://0x7f.1:8420/practice/token",
    "http://localhost:8420/practice/token",
    "https://127.0.0.1:8420/practice/token",
]


@pytest.mark.parametrize("url", ["http://127.0.0.1:8420/practice", "http://127.0.0.1:8420/practice/token?a=b"])
def test_the_practice_provider_can_be_configured(url: str) -> None:
    check_url(url, what="it", egress_allow=(PLACE,))
    with pytest.raises(ValueError, match="plain http"):
        check_url(url, what="it", egress_allow=())


@pytest.mark.parametrize("url", ELSEWHERE)
async def test_nothing_beside_it_can_be_configured_or_called(url: str) -> None:
    with pytest.raises(ValueError, match=r"plain http|not public"):
        check_url(url, what="it", egress_allow=(PLACE,))
    async with open_http((PLACE,)) as http:
        with pytest.raises(EgressRefused):
            await http.get_json(url)
