"""Whose word about a client is taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingress.proxies import Proxies, fields

OURS = Proxies("10.0.0.0/8, fd00::/8, 192.0.2.1")


@pytest.mark.parametrize(
    ("given", "path"),
    [
        (b"", ["10.0.0.1"]),
        (b"203.0.113.7", ["203.0.113.7", "10.0.0.1"]),
        (b"6.6.6.6, 203.0.113.7", ["203.0.113.7", "10.0.0.1"]),
        (b"203.0.113.7,10.2.2.2 , fd00::2", ["203.0.113.7", "10.2.2.2", "fd00::2", "10.0.0.1"]),
        (b"nonsense, 10.2.2.2", ["10.2.2.2", "10.0.0.1"]),
        (b"203.0.113.7:4711", ["10.0.0.1"]),
        (b"10.3.3.3\r\nX: y", ["10.0.0.1"]),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_no_proxy_of_ours(given: bytes, path: list[str]) -> None:
    assert OURS.path("10.0.0.1", given) == path


@given(st.binary(max_size=200))
def test_nothing_that_is_said_can_break_a_line(said: bytes) -> None:
    made = fields(OURS.path("10.0.0.1", said), "http", b"a.b")
    assert made.count(b"\r\n") == 4
    assert made.count(b"\n") == 4


def test_a_network_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match=r"'10\.0\.0/8'"):
        Proxies("127.0.0.1, 10.0.0/8")
