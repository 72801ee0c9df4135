"""What the kernel says of connections whose process has ended."""

import socket

import pytest

from activator.lingering import asked, half_closed, printed

TABLE = b"""  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11223 1 0000000000000000 100 0 0 10 0
   1: 0100E70A:9C40 0200E70A:1F90 01 00000000:00000000 00:00000000 00000000     0        0 11224 1 0000000000000000 20 4 30 10 -1
   2: 0100E70A:9C41 0200E70A:1F90 05 00000000:00000000 00:00000000 00000000     0        0 0 1 0000000000000000 20 4 30 10 -1
   3: 0100E70A:9C42 0300E70A:0050 04 00000000:00000000 00:00000000 00000000     0        0 0 1 0000000000000000 20 4 30 10 -1
"""


def test_connections_that_only_the_other_side_keeps_open_are_found() -> None:
    assert half_closed(TABLE) == ["10.231.0.2:8080", "10.231.0.3:80"]


def test_ipv6_is_read_too() -> None:
    line = b"head\n 0: 00000000000000000000000001000000:9C40 B80D0120000000000000000001000000:1F90 05 0:0 00:0 0 0 0 0 1 0\n"
    assert half_closed(line) == ["[2001:db8::1]:8080"]


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_the_kernel_says_the_same_by_netlink_as_in_its_table(family: socket.AddressFamily, host: str) -> None:
    with socket.create_server((host, 0), family=family) as server:
        port = server.getsockname()[1]
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        with socket.create_connection((host, port)) as client:
            kept, _ = server.accept()
            with kept:
                assert shown not in [*asked(family), *printed()]
                client.close()
                assert list(asked(family)).count(shown) == printed().count(shown) == 1
