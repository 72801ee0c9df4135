"""Addresses: unique, as late again as possible, and only from a subnet that can be had."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.network.addresses import Addresses, BadSubnet, NoAddress, check_free, parse_subnet


def test_the_gateway_is_the_first_address_and_is_never_given_out() -> None:
    addresses = Addresses("10.9.0.0/29")
    assert addresses.gateway == "10.9.0.1"
    assert [addresses.take() for _ in range(5)] == [f"10.9.0.{n}" for n in range(2, 7)]
    with pytest.raises(NoAddress, match=r"10\.9\.0\.0/29"):
        addresses.take()


def test_a_freed_address_comes_last() -> None:
    addresses = Addresses("10.9.0.0/29")
    first, second = addresses.take(), addresses.take()
    addresses.free(second)
    addresses.free(first)
    assert [addresses.take() for _ in range(5)] == ["10.9.0.4", "10.9.0.5", "10.9.0.6", second, first]


def test_an_adopted_address_is_not_given_out_again() -> None:
    addresses = Addresses("10.9.0.0/29")
    addresses.reserve("10.9.0.3")
    assert [addresses.take() for _ in range(4)] == ["10.9.0.2", "10.9.0.4", "10.9.0.5", "10.9.0.6"]
    addresses.free("10.9.0.3")
    assert addresses.take() == "10.9.0.3"


@pytest.mark.parametrize("address", ["10.9.0.0", "10.9.0.1", "10.9.0.7", "10.10.0.2"])
def test_an_address_that_no_instance_can_have_is_refused(address: str) -> None:
    with pytest.raises(BadSubnet, match="--subnet"):
        Addresses("10.9.0.0/29").reserve(address)


@given(first=st.integers(2, 1 << 16), moves=st.lists(st.one_of(st.none(), st.integers(0, 20)), max_size=60))
def test_no_address_is_had_twice_and_none_is_lost(first: int, moves: list[int | None]) -> None:
    addresses, held = Addresses("10.9.0.0/28", first), []
    for move in moves:
        if move is None and len(held) < 13:
            taken = addresses.take()
            assert taken not in held
            held.append(taken)
        elif move is not None and held:
            addresses.free(held.pop(move % len(held)))
        assert len(addresses) == len(held)
    while len(held) < 13:
        held.append(addresses.take())
    assert len(set(held)) == 13
    with pytest.raises(NoAddress):
        addresses.take()


@pytest.mark.parametrize(
    "text", ["10.9.0.1/16", "10.0.0.0/7", "10.9.0.0/30", "127.0.0.0/8", "169.254.0.0/16", "fd00::/64", "x"]
)
def test_a_subnet_that_cannot_be_used_is_refused_with_its_name(text: str) -> None:
    with pytest.raises(BadSubnet, match="--subnet"):
        parse_subnet(text)


def test_a_subnet_that_the_machine_already_routes_is_refused() -> None:
    subnet = parse_subnet("10.231.0.0/16")
    check_free(subnet, [("0.0.0.0/0", "eth0"), ("192.168.1.0/24", "eth0")])
    with pytest.raises(BadSubnet, match=r"overlaps 10\.231\.4\.0/24 on wg0"):
        check_free(subnet, [("0.0.0.0/0", "eth0"), ("10.231.4.0/24", "wg0")])
