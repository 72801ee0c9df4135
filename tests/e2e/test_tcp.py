"""A service that speaks raw TCP, on a port of its own."""

import socket
from collections.abc import Iterator

import pytest

from deploy.ports import free_port
from tests.e2e.engine import Engine, until

ECHO = "exec /bin/busybox nc -ll -p $PORT -e /bin/busybox cat"


@pytest.fixture
def second(engine: Engine, app: str) -> Iterator[str]:
    yield f"{app}-b"
    engine.delete(f"{app}-b")


def said_back(port: int, words: bytes) -> bytes:
    """What a service at `port` answers to `words` and the end of them."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(words)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65_536), b""))


def test_an_unmodified_server_wakes_on_connect_and_the_next_in_line_gets_its_port(
    engine: Engine, app: str, second: str
) -> None:
    port = free_port()
    flags = ["--image", "test/static:v1", "--tcp", str(port), "--args", f"sh,-c,{ECHO}", "--command", "/bin/busybox"]
    flags += ["-a", "autoscaling.knative.dev/window=6s"]
    done = engine.ebb("deploy", app, *flags)
    assert done.stdout.strip() == f"tcp://{engine.host(app)}:{port}"
    big = bytes(range(256)) * 4096
    assert said_back(port, big) == big
    engine.at_zero(app, 40)
    assert said_back(port, b"from zero") == b"from zero"
    refused = engine.ebb("deploy", second, *flags, check=False)
    assert refused.returncode == 1
    assert f"port {port} belongs to route '{app}'" in refused.stderr
    assert engine.condition(second)["reason"] == "PortTaken"
    engine.ebb("delete", app)
    until(lambda: engine.condition(second)["status"] == "True", "the port is the second's", 10)
    assert said_back(port, b"mine now") == b"mine now"
