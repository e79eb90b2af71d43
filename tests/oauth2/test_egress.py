"""Which addresses may be called, and what may be configured."""

import ipaddress
import re

import pytest

from evergrant.networks import Network
from evergrant.oauth2.egress import check_url, is_public, literal_address, parse_target
from tests.oauth2.network import LOOPBACK

NOT_PUBLIC = [
    "0.0.0.0",
    "0.1.2.3",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.192",
    "192.168.1.1",
    "192.88.99.1",
    "198.18.0.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "3fff::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_no_provider_has_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_a_public_address_is_public_also_when_ipv6_carries_it(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "127.1", "127.0.0.1."])
def test_every_spelling_of_an_address_is_recognised(host: str) -> None:
    assert literal_address(host) == ipaddress.ip_address("127.0.0.1")


def test_a_name_is_not_an_address() -> None:
    assert literal_address("provider.example") is None
    assert literal_address("999999999999") is None


@pytest.mark.parametrize(
    "url",
    [
        "https://provider.example",
        "https://provider.example:8443/token?a=b",
        "https://8.8.8.8/token",
        "https://[2001:4860:4860::8888]/token",
        "https://bücher.example/token",
    ],
)
def test_a_public_https_url_may_be_configured(url: str) -> None:
    check_url(url, what="the token URL", egress_allow=())


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "must start with https://"),
        ("provider.example/token", "must start with https://"),
        ("ftp://provider.example/", "must start with https://"),
        ("javascript:alert(1)", "must start with https://"),
        ("http://provider.example/token", "must start with https://"),
        ("http://localhost/token", "must start with https://"),
        ("https:///token", "must name a host"),
        ("https://pro vider.example/", "must not contain blanks"),
        ("https://[::1%25lo]/", "must name a host"),
        ("https://ex%61mple.com/", "must name a host"),
        ("https://[::1/", "is not a URL"),
        ("https://user@provider.example/", "must not contain a user name"),
        ("https://@provider.example/", "must not contain a user name"),
        ("https://provider.example:pw@10.0.0.1/", "must not contain a user name"),
        ("https://provider.example\\@10.0.0.1/", "must not contain a user name"),
        ("https://provider.example/token#x", "must not contain a fragment"),
        ("https://localhost/token", "EVERGRANT_EGRESS_ALLOW"),
        ("https://app.localhost./token", "EVERGRANT_EGRESS_ALLOW"),
        ("https://169.254.169.254/latest", "EVERGRANT_EGRESS_ALLOW"),
        ("https://2130706433/", "EVERGRANT_EGRESS_ALLOW"),
        ("https://[::ffff:127.0.0.1]/", "EVERGRANT_EGRESS_ALLOW"),
    ],
)
def test_a_url_that_could_never_be_called_is_refused_with_its_remedy(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^the token URL .*{re.escape(problem)}"):
        check_url(url, what="the token URL", egress_allow=())


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/token", "http://localhost:8080/t", "https://127.1/token"])
def test_an_opened_network_may_be_configured_with_plain_http(url: str) -> None:
    check_url(url, what="the token URL", egress_allow=LOOPBACK)


def test_opening_an_ipv4_network_opens_its_mapped_spelling_and_nothing_else() -> None:
    check_url("https://[::ffff:127.0.0.1]/", what="it", egress_allow=LOOPBACK)
    only: tuple[Network, ...] = (ipaddress.ip_network("10.0.0.0/8"),)
    with pytest.raises(ValueError, match="not public"):
        check_url("https://127.0.0.1/", what="it", egress_allow=only)


def test_a_target_keeps_the_query_and_lowers_the_host() -> None:
    target = parse_target("HTTPS://Provider.Example/Token?A=B")
    assert (target.scheme, target.host, target.port, target.path) == (
        "https",
        "provider.example",
        443,
        "/Token?A=B",
    )
