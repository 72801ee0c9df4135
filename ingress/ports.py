"""Ports of their own for services that speak raw TCP: each is listened on for as long as a route names it.

The workers of one front door share a port (SO_REUSEPORT), and the kernel would let another engine of this machine share it as well, and
give each half of the connections. So who finds a port in use that no worker of ours says it has, leaves it alone and tells.
"""

import asyncio
import errno
import socket
from collections.abc import Callable
from functools import partial

from ingress import limits
from ingress.gate import Gate
from ingress.listener import Listener
from ingress.tcp import TcpClient
from process import logs
from process.run import Jobs

log = logs.get("ingress")


class Ports:
    """`open`: ports listened on now. `down`: those that cannot be → why; `on_change` is called after a change."""

    def __init__(self, gate: Gate, on_change: Callable[[], None], shared: Callable[[int], bool] = lambda port: False) -> None:
        """`shared`: whether another worker of this front door listens on a port."""
        self.open: dict[int, Listener] = {}
        self.down: dict[int, str] = {}
        self._gate = gate
        self._on_change = on_change
        self._shared = shared
        self._doubted: set[int] = set()
        """In use, perhaps by a worker of ours that has not said so yet: they are looked at again."""
        self._host = ""
        self._own: frozenset[int] = frozenset()
        self._left: list[Listener] = []
        """No route names their port any more; connections that stand go on."""
        self._changed = asyncio.Event()
        self._some = asyncio.Event()
        """Set while there is a listener."""

    def start(self, host: str, own: frozenset[int], jobs: Jobs) -> None:
        """Listen on `host` wherever routes want it, but never on the front door's `own` ports."""
        self._host, self._own = host, own
        self._gate.routes.on_ports = self._changed.set
        self._changed.set()
        jobs.start(self._follow(), "ports", fatal=True)
        jobs.start(self._sweep(), "sweep of ports", fatal=True)

    async def drain(self, timeout_s: float) -> None:
        """Accept no more; what is open may end, at most `timeout_s`."""
        listeners = [*self.open.values(), *self._left]
        await asyncio.gather(*(each.drain(timeout_s) for each in listeners))

    async def _follow(self) -> None:
        while True:
            try:
                again_s = limits.PORT_AGAIN_S if self.down else None
                async with asyncio.timeout(limits.PORT_DOUBT_S if self._doubted else again_s):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            if not self._gate.closing:
                await self._adjust(set(self._gate.routes.ports))

    async def _adjust(self, wanted: set[int]) -> None:
        before = dict(self.down), set(self.open)
        self.down = {port: why for port, why in self.down.items() if port in wanted}
        self._doubted &= wanted
        for port in set(self.open) - wanted:
            listener = self.open.pop(port)
            self._left.append(listener)
            await listener.stop_accepting()
            log.info("port closed", port=port, connections=len(listener))
        for port in sorted(wanted - set(self.open)):
            await self._listen(port)
        if (self.down, set(self.open)) != before:
            self._on_change()

    async def _listen(self, port: int) -> None:
        listener = Listener(self._gate, "tcp", partial(TcpClient, port=port))
        try:
            if port in self._own:
                raise OSError(f"port {port} is where the front door itself listens")
            if not self._shared(port) and in_use(self._host, port):
                if port not in self._doubted and port not in self.down:
                    self._doubted.add(port)
                    return
                raise OSError(f"port {port} is in use by another program of this machine; stop that, or choose another port")
            await listener.start(f"{self._host}:{port}")
        except OSError as error:
            if port not in self.down:
                log.warning("a service's port cannot be listened on", port=port, error=str(error))
            self.down[port] = str(error.args[-1])
            self._doubted.discard(port)
            return
        self.down.pop(port, None)
        self._doubted.discard(port)
        self.open[port] = listener
        self._some.set()
        log.info("port opened", port=port)

    async def _sweep(self) -> None:
        """As the listener's, for all ports at once."""
        while True:
            await self._some.wait()
            await asyncio.sleep(limits.SWEEP_S)
            now = self._gate.clock.now()
            for listener in (*self.open.values(), *self._left):
                listener.look(now)
            self._left = [listener for listener in self._left if len(listener)]
            if not (self.open or self._left):
                self._some.clear()


def in_use(host: str, port: int) -> bool:
    """Whether somebody listens on `port` already, be it in a way that would let others do so too."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]") or "0.0.0.0", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False
