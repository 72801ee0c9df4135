"""Where instances may connect to, in words."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import egress
from store.egress import PRIVATE, Egress


def allows(what: Egress, address: str, port: int) -> bool:
    """What the kernel's rules do with it."""
    found = ipaddress.IPv4Address(address)
    private = any(found in net for net in PRIVATE)
    listed = any(found in reach.network and reach.port in (0, port) for reach in what.listed)
    return listed or (what.private if private else what.internet)


@pytest.mark.parametrize("text", ["open", "none", "private", "open,private", "1.2.3.4/32", "open,10.1.0.0/16:5432"])
def test_what_is_parsed_is_written_the_same(text: str) -> None:
    assert str(egress.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "all", "none,open", "10.1.2.3/16", "10.0.0.0/8:0", "10.0.0.0/8:65536", "1.2.3.4:", "fd00::/8", "1.2.3.4:٣"]
)
def test_what_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="none, open, private"):
        egress.parse(text)


def test_a_list_is_bounded() -> None:
    with pytest.raises(ValueError, match="at most 64"):
        egress.parse(",".join(f"1.2.3.{n}" for n in range(65)))


@pytest.mark.parametrize(
    ("wish", "bound", "both"),
    [
        ("open", "none", "none"),
        ("open", "private", "none"),
        ("open", "open,private", "open"),
        ("10.1.0.0/16:5432", "open", "none"),
        ("10.1.0.0/16:5432", "private", "10.1.0.0/16:5432"),
        ("0.0.0.0/0:443", "10.1.0.0/16", "10.1.0.0/16:443"),
        ("private", "10.1.0.0/16:5432,1.2.3.4", "10.1.0.0/16:5432"),
        ("1.2.3.4:80", "1.2.3.0/24:443", "none"),
    ],
)
def test_a_service_has_what_its_project_may_and_no_more(wish: str, bound: str, both: str) -> None:
    assert str(egress.narrow(egress.parse(wish), egress.parse(bound))) == both


_nets = st.sampled_from(["0.0.0.0/0", "8.0.0.0/5", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "9.9.9.9/32", "192.168.0.0/24"])
_reaches = st.builds(lambda net, port: f"{net}:{port}" if port else net, _nets, st.sampled_from([0, 53, 443]))
_texts = st.lists(st.one_of(st.sampled_from(["open", "private"]), _reaches), min_size=1, max_size=5).map(",".join)


_places = st.sampled_from(["9.9.9.9", "10.1.2.3", "10.9.9.9", "192.168.0.7", "1.1.1.1", "100.64.0.1"])
_ports = st.sampled_from([53, 443, 80])


@given(_texts, _texts, _places, _ports)
def test_what_two_allow_together_is_what_each_allows(one: str, other: str, address: str, port: int) -> None:
    a, b = egress.parse(one), egress.parse(other)
    assert allows(egress.narrow(a, b), address, port) == (allows(a, address, port) and allows(b, address, port))


@given(_texts, _places, _ports)
def test_a_disjoint_list_allows_the_same_and_nothing_twice(text: str, address: str, port: int) -> None:
    listed = egress.parse(text).listed
    apart = egress.disjoint(listed)
    assert allows(Egress(listed=tuple(apart)), address, port) == allows(Egress(listed=listed), address, port)
    found = ipaddress.IPv4Address(address)
    assert sum(found in reach.network and reach.port in (0, port) for reach in apart) <= 1
