"""A machine of the test's own: a network namespace that plays the host, and one that plays its neighbour on the network.

Nothing here touches the real machine's network. Every helper runs in a thread that has moved into the namespace in question.
"""

import asyncio
import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TypeVar

from nodeagent.network import links

T = TypeVar("T")

HOST, NEIGHBOUR, METADATA = "192.0.2.1", "192.0.2.2", "169.254.169.254"
DROPPED_S = 0.25
"""A connect that is neither accepted nor refused for so long was dropped: within one machine answers take microseconds."""

_libc = ctypes.CDLL(None, use_errno=True)


def in_namespace(namespace: int | None, work: Callable[[], T]) -> T:
    """`work()` done in a network namespace: an open one, or with None a new one that lives as long as `work` or who holds it."""
    result: Future[T] = Future()

    def body() -> None:
        try:
            if namespace is None:
                assert _libc.unshare(links.CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            else:
                links.enter(namespace)
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return result.result()


def run_on_a_machine(test: Callable[["Machine"], Awaitable[None]]) -> None:
    """Run `test` in an event loop inside a fresh host with a neighbour."""

    def body() -> None:
        machine = Machine()
        try:
            asyncio.run(_awaited(test(machine)))
        finally:
            os.close(machine.neighbour)
            os.close(machine.host)

    in_namespace(None, body)


async def _awaited(work: Awaitable[None]) -> None:
    await work


def ip(*words: str) -> None:
    """`ip …` in the calling thread's namespace."""
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


class Machine:
    """The host (the calling thread's namespace) and its neighbour, who also answers as the clouds' metadata service would."""

    def __init__(self) -> None:
        self.host = links.open_own_namespace()
        self.neighbour = in_namespace(None, links.open_own_namespace)
        ip("link", "set", "lo", "up")
        ip("link", "add", "out0", "type", "veth", "peer", "name", "out1")
        ip("link", "set", "out1", "netns", f"/proc/{os.getpid()}/fd/{self.neighbour}")
        ip("addr", "add", f"{HOST}/24", "dev", "out0")
        ip("link", "set", "out0", "mtu", "1400", "up")

        def furnish() -> None:
            ip("link", "set", "lo", "up")
            ip("addr", "add", f"{NEIGHBOUR}/24", "dev", "out1")
            ip("addr", "add", f"{METADATA}/32", "dev", "out1")
            ip("link", "set", "out1", "up")
            ip("route", "add", "default", "via", HOST)  # a neighbour that tries to reach instances

        in_namespace(self.neighbour, furnish)
        ip("route", "add", "default", "via", NEIGHBOUR)


class Listener:
    """A TCP server in a namespace that remembers who connected."""

    def __init__(self, namespace: int, address: str = "0.0.0.0") -> None:
        self.socket = in_namespace(namespace, lambda: socket.create_server((address, 0)))
        self.socket.settimeout(5)
        self.port: int = self.socket.getsockname()[1]

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def peer(self) -> str:
        """The address of the next who connected."""
        connection, address = self.socket.accept()
        connection.close()
        return str(address[0])


def reaches(namespace: int, address: str, port: int, source: str | None = None) -> bool:
    """Whether a TCP connect from `namespace` is accepted. A refusal is an answer too, and fails the test."""

    def attempt() -> bool:
        with socket.socket() as client:
            client.settimeout(DROPPED_S)
            if source:
                client.bind((source, 0))
            try:
                client.connect((address, port))
            except TimeoutError:
                return False
            except ConnectionRefusedError:
                raise AssertionError(f"{address}:{port} was reached, though nothing listens there") from None
            except OSError:
                return False
            return True

    return in_namespace(namespace, attempt)
