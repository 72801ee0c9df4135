"""What waits at a socket that closes goes to another one that listens on the same port: in a network namespace of the test's own."""

import socket
import subprocess
from pathlib import Path

import pytest

from deploy import handover
from tests.integration.netns_world import in_namespace

WAITING = 64
MIGRATE = Path("/proc/sys/net/ipv4/tcp_migrate_req")


def listening(port: int = 0, family: int = socket.AF_INET) -> socket.socket:
    made = socket.socket(family)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1" if family == socket.AF_INET else "::1", port))
    made.listen(WAITING)
    made.settimeout(0.5)
    return made


def accepted_of_the_waiting(family: int) -> int:
    """Of clients that wait at two sockets, how many the second accepts when the first closes."""
    first = listening(family=family)
    with listening(first.getsockname()[1], family) as second:
        clients = [socket.create_connection(first.getsockname()[:2], 1) for _ in range(WAITING)]
        first.close()
        accepted = []
        try:
            while len(accepted) < WAITING:
                accepted.append(second.accept()[0])
        except TimeoutError:
            pass
        for each in (*clients, *accepted):
            each.close()
    return len(accepted)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_who_waits_at_a_socket_that_closes_is_accepted_at_another(tmp_path: Path, family: int) -> None:
    def body() -> tuple[int, int, int]:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=10)
        MIGRATE.write_text("0")
        before = accepted_of_the_waiting(family)
        assert handover.begin(tmp_path) == ""
        during = accepted_of_the_waiting(family)
        handover.end(tmp_path)
        return before, during, accepted_of_the_waiting(family)

    before, during, after = in_namespace(None, body)
    assert during == WAITING
    assert before < WAITING > after, "otherwise the kernel does it by itself"


def test_what_was_set_already_is_left_as_it_was(tmp_path: Path) -> None:
    def body() -> str:
        MIGRATE.write_text("1")
        handover.begin(tmp_path)
        handover.end(tmp_path)
        return MIGRATE.read_text().strip()

    assert in_namespace(None, body) == "1"
    assert not list(tmp_path.iterdir())


def test_where_it_cannot_be_set_the_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "_MIGRATE", tmp_path / "older" / "kernel")
    assert handover.begin(tmp_path) == (
        "net.ipv4.tcp_migrate_req cannot be 1 (No such file or directory): `ebb roll` may break off connections that are just made"
    )
