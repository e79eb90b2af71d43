"""Networks as an operator writes them, and what this machine is called."""

from ipaddress import ip_network

import pytest

from evergrant.networks import is_loopback_host, parse_networks


def test_networks_are_separated_by_commas_and_an_address_is_a_network_of_one() -> None:
    assert parse_networks("10.0.0.0/8, fd00::/8,192.0.2.1,") == (
        ip_network("10.0.0.0/8"),
        ip_network("fd00::/8"),
        ip_network("192.0.2.1/32"),
    )
    assert parse_networks("") == ()


@pytest.mark.parametrize("text", ["10.0.0.1/8", "example.com", "10.0.0.0/8;10.1.0.0/16"])
def test_what_is_no_network_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match=r"write networks like 10\.0\.0\.0/8, separated by commas"):
        parse_networks(text)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "::1"])
def test_this_machine_is_known_by_its_names(host: str) -> None:
    assert is_loopback_host(host)


@pytest.mark.parametrize("host", ["localhost.example.com", "127.0.0.1.example.com", "10.0.0.1", "0.0.0.0", "::", ""])
def test_another_machine_is_not_taken_for_this_one(host: str) -> None:
    assert not is_loopback_host(host)
