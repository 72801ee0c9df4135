"""Which addresses the engine connects to on a user's behalf."""

import ipaddress

import pytest

from process.outbound import NotAllowed, Outbound, is_public, refusal_in

PUBLIC = ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "64:ff9b::1.1.1.1", "::ffff:8.8.8.8"]
OWN = [
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "224.0.0.1",
    "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "fec0::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_the_internet_is_reached(address: str) -> None:
    Outbound().check(address)


@pytest.mark.parametrize("address", OWN)
def test_what_only_this_machine_reaches_is_not_however_it_is_written(address: str) -> None:
    with pytest.raises(NotAllowed, match="no public address"):
        Outbound().check(address)


def test_a_network_that_is_allowed_is_reached_and_its_neighbour_is_not() -> None:
    out = Outbound(["10.1.0.0/16", "fd00::/8"])
    out.check("10.1.2.3")
    out.check("::ffff:10.1.2.3")
    out.check("fd12::1")
    with pytest.raises(NotAllowed):
        out.check("10.2.0.1")


def test_a_network_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"10\.1\.2\.3/16"):
        Outbound(["10.1.2.3/16"])


def test_the_refusal_is_found_in_what_was_made_of_it() -> None:
    with pytest.raises(NotAllowed) as found:
        Outbound().check("::ffff:127.0.0.1")
    assert refusal_in(OSError(f"Cannot connect to host x:80 ssl:default [{found.value}]")) == (
        "::ffff:127.0.0.1 is not reached on a user's behalf"
    )
    assert refusal_in(OSError("Connection refused")) == ""
    assert not is_public(ipaddress.ip_address("100.127.255.255"))
