"""A pool of ready networks: taking one costs nothing on the start path, because it was made before.

    pool = NetworkPool(prefix="ebb", subnet="10.231.0.0/16", run_dir=run)
    await pool.start()                     # table, gateway, forwarding; begins to fill
    pool.adopt(pid, address)               # each container that outlived the agent
    await pool.sweep()                     # links of ours that belong to nobody
    network = await pool.take()
    pool.release(network)                  # teardown happens behind
    await pool.stop(keep={address, …})     # what runs on keeps its network

A namespace is held by a descriptor alone and given to containerd as `/proc/<agent>/fd/<n>`: what the agent loses in a crash the
kernel frees. All kernel calls are made in one helper thread, which works in the network namespace that `start` was called in.
"""

import asyncio
import os
import random
import re
from collections import deque
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nodeagent import firewall
from nodeagent.firewall import Caps, Doors, Permit, Resident
from nodeagent.network import links
from nodeagent.network.addresses import Addresses, BadSubnet, check_free
from nodeagent.network.errors import NetworkError
from nodeagent.network.nft import Nft
from nodeagent.network.permits import Permits
from nodeagent.network.rtnetlink import Netlink
from process import logs
from process.run import Jobs

T = TypeVar("T")

_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")
_PREFIX = re.compile(r"[a-z][a-z0-9]{0,5}")
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_REFILL_QUIET_S = 0.02
"""The pool is refilled this long after the last take, so that a burst has the processor; or at once when half empty."""
_REAP_EVERY_S = 0.1
_GONE_WITHIN_S = 3.0
"""A released namespace dies with its last process; after this long its link is deleted by hand."""
_RETRY_S = 1.0

log = logs.get("network")


@dataclass(frozen=True, slots=True)
class Network:
    """One instance's network: a namespace with its link up, addressed and routed."""

    ns_path: str
    """What the OCI spec names; valid until the network is released."""
    address: str
    veth: str
    """The link's end on the host."""
    index: int
    """That end's interface index."""
    fd: int
    """The descriptor that keeps the namespace."""
    pid_hint: int = 0
    """A process inside, when it was adopted."""


class NetworkPool:
    """Networks for instances, `pool_size` of them ready before they are asked for."""

    def __init__(
        self, *, prefix: str, subnet: str, run_dir: Path, pool_size: int = 8, caps: Caps | None = None, jobs: Jobs | None = None
    ) -> None:
        """`prefix` (≤ 6 characters) begins the names of all that is made. Raises BadSubnet or ValueError for what cannot be."""
        if not _PREFIX.fullmatch(prefix):
            raise ValueError(f"--id {prefix!r}: want 1 to 6 lower-case letters and digits, a letter first")
        self._prefix, self._pool_size, self._caps = prefix, pool_size, caps or Caps()
        self.doors = Doors()
        """What of the host instances may reach; set before `start`."""
        self._addresses = Addresses(subnet, first=random.randrange(2, 1 << 16))
        self._forward_was = run_dir / f"{prefix}.ip_forward"
        self._permits = Permits(run_dir / f"{prefix}.permits")
        self._ready: deque[Network] = deque()
        self._unclaimed: dict[str, str] = {}
        self._cooling: dict[str, tuple[str, float]] = {}
        self._wanted = asyncio.Event()
        self._released = asyncio.Event()
        self._last_take = 0.0
        self._jobs = jobs or Jobs("network")
        self._tasks: list[asyncio.Task[None]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._host: Netlink
        self._nft: Nft
        self._home = -1
        self._mtu = 1500
        self._admitted: dict[str, Resident] = {}
        """What the kernel's tables hold, by address; the helper thread's."""

    @property
    def gateway(self) -> str:
        """The address the host speaks from."""
        return self._addresses.gateway

    @property
    def ready(self) -> int:
        """How many networks could be taken at once."""
        return len(self._ready)

    @property
    def connections_most(self) -> int:
        """How many connections each instance may have out into the world; 0: no limit."""
        return self._caps.connections

    async def crowded(self) -> frozenset[str]:
        """Addresses that were refused a connection in the last seconds for having too many."""
        try:
            shown = (
                await self._in_thread(lambda: self._nft.show(firewall.crowded(self._prefix))) if self._caps.connections else ""
            )
        except NetworkError as error:
            log.warning("cannot see who was refused connections", error=str(error))
            shown = ""
        return frozenset(_ADDRESS.findall(shown))

    async def start(self) -> None:
        """Bring the host's side up and begin to fill the pool. Raises BadSubnet, NetworkError or OSError."""
        try:
            await self._in_thread(self._set_up)
        except BaseException:
            self._thread.shutdown()
            raise
        self._tasks = [
            self._jobs.start(self._keep_filled(), "network pool"),
            self._jobs.start(self._reap(), "network reaper"),
        ]
        self._wanted.set()

    async def take(self) -> Network:
        """A ready network; one is made now only when the pool is empty. Raises NoAddress or OSError."""
        self._last_take = asyncio.get_running_loop().time()
        self._wanted.set()
        if self._ready:
            return self._ready.popleft()
        return await self._make()

    async def permit(self, network: Network, permit: Permit) -> None:
        """From now on `network` may do what `permit` says; a new one has the default. Raises NetworkError or OSError."""
        if permit != self._permits.of(network.address):
            await self._in_thread(lambda: self._change(network, permit))

    def release(self, network: Network) -> None:
        """Give a network back when its last process is gone; returns at once. Releasing twice does nothing."""
        if network.address not in self._addresses or network.address in self._cooling:
            return
        _close(network.fd)
        self._cooling[network.address] = (network.veth, asyncio.get_running_loop().time())
        self._released.set()

    def adopt(self, pid: int, address: str) -> Network:
        """The network of a container that outlived the agent's restart, `pid` being a process in it.

        Raises BadSubnet when the address is not of this subnet, NetworkError when the process or its link is gone.
        """
        veth = self._veth(address)
        index = self._host.index(veth)
        if index is None:
            raise NetworkError(f"link {veth} of {address} is gone; the instance has no network and must be replaced")
        try:
            fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NetworkError(f"process {pid} with address {address} is gone: {error}") from None
        self._addresses.reserve(address)
        self._unclaimed.pop(veth, None)
        return Network(f"/proc/{os.getpid()}/fd/{fd}", address, veth, index, fd, pid)

    async def sweep(self) -> list[str]:
        """Delete links of ours that nobody adopted since `start`; returns their names."""
        orphans, self._unclaimed = self._unclaimed, {}
        for veth, address in orphans.items():
            await self._in_thread(lambda name=veth, address=address: self._forget(name, address))  # type: ignore[misc]
            self._addresses.free(address)
        if orphans:
            log.info("links of nobody deleted", links=sorted(orphans))
        return sorted(orphans)

    async def stop(self, keep: AbstractSet[str] = frozenset()) -> None:
        """End the pool. Networks with an address in `keep` stay, with the table and forwarding; without any, all is put back."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for network in self._ready:
            _close(network.fd)
            self._cooling[network.address] = (network.veth, 0.0)
        self._ready.clear()
        await self._in_thread(lambda: self._tear_down(keep))
        self._thread.shutdown()
        self._host.close()
        self._nft.close()
        _close(self._home)

    # -- in the loop ----------------------------------------------------------------------------------------------------------

    async def _make(self) -> Network:
        address = self._addresses.take()
        veth = self._veth(address)
        building = asyncio.ensure_future(self._in_thread(lambda: self._build(veth, address)))

        def network() -> Network:
            fd, index = building.result()
            return Network(f"/proc/{os.getpid()}/fd/{fd}", address, veth, index, fd)

        try:
            await asyncio.shield(building)
        except asyncio.CancelledError:
            # The thread goes on; what it makes is for the next who asks.
            building.add_done_callback(
                lambda done: None if done.cancelled() or done.exception() else self._ready.append(network())
            )
            raise
        except BaseException:
            self._addresses.free(address)
            raise
        return network()

    async def _keep_filled(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while len(self._ready) < self._pool_size:
                quiet = self._last_take + _REFILL_QUIET_S - clock()
                if quiet > 0 and 2 * len(self._ready) >= self._pool_size:
                    await asyncio.sleep(quiet)
                    continue
                try:
                    self._ready.append(await self._make())
                except Exception as error:
                    log.error("cannot make a network; trying again", error=str(error), retry_s=_RETRY_S)
                    await asyncio.sleep(_RETRY_S)

    async def _reap(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await self._released.wait()
            self._released.clear()
            while self._cooling:
                await asyncio.sleep(_REAP_EVERY_S)
                for address, (veth, since) in list(self._cooling.items()):
                    if self._host.index(veth) is not None:
                        if clock() - since < _GONE_WITHIN_S:
                            continue
                        log.warning("namespace outlived its instance; link deleted", link=veth, address=address)
                    try:
                        await self._in_thread(lambda name=veth, address=address: self._forget(name, address))  # type: ignore[misc]
                    except (NetworkError, OSError) as error:
                        log.error("cannot take back a network; trying again", address=address, error=str(error))
                        continue
                    del self._cooling[address]
                    self._addresses.free(address)

    def _veth(self, address: str) -> str:
        return f"{self._prefix}-{self._addresses.offset(address)}"

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # -- in the helper thread -------------------------------------------------------------------------------------------------

    def _set_up(self) -> None:
        self._host, self._nft, self._home = Netlink(), Nft(), links.open_own_namespace()
        try:
            self._bring_up()
        except BaseException:
            if not self._unclaimed:
                links.delete_link(self._host, f"{self._prefix}-gw0")
            self._host.close()
            self._nft.close()
            _close(self._home)
            raise

    def _bring_up(self) -> None:
        own = f"{self._prefix}-"
        check_free(self._addresses.network, [route for route in links.routes(self._host) if not route[1].startswith(own)])
        for name in links.link_names(self._host).values():
            number = name.removeprefix(own)
            if name.startswith(own) and number.isdigit():
                address = self._addresses.at(int(number))
                if address is None:
                    raise BadSubnet(
                        f"link {name} is of another subnet than {self._addresses.network}; stop its instances first"
                    )
                self._addresses.reserve(address)
                self._unclaimed[name] = address
        self._mtu = links.default_mtu(self._host)
        links.make_gateway(self._host, f"{own}gw0", self.gateway)
        self._permits.load(self._unclaimed.values())
        residents = [self._resident(veth, address) for veth, address in self._unclaimed.items()]
        self._nft.apply(
            firewall.ruleset(self._prefix, str(self._addresses.network), self.gateway, own, self.doors, self._caps, residents)
        )
        self._admitted = {resident.address: resident for resident in residents}
        if _FORWARD.read_text().strip() == "0":
            self._forward_was.parent.mkdir(parents=True, exist_ok=True)
            self._forward_was.write_text("0\n")
            _FORWARD.write_text("1")

    def _build(self, veth: str, address: str) -> tuple[int, int]:
        if self._host.index(veth) is not None:  # a dying namespace still has it
            links.delete_link(self._host, veth)
        made = links.make_namespace(self._host, self._home, veth, address, self.gateway, self._mtu)
        try:
            self._admit(Resident(veth, address))
        except BaseException:
            _close(made[0])
            raise
        return made

    def _resident(self, veth: str, address: str) -> Resident:
        permit = self._permits.of(address)
        return Resident(veth, address, permit, self._permits.number(permit.circle))

    def _admit(self, resident: Resident) -> None:
        """Replaces what was admitted at that address, in one transaction."""
        old = self._admitted.get(resident.address)
        undo = firewall.dismiss(self._prefix, old) if old is not None else []
        self._nft.apply("\n".join([*undo, *firewall.admit(self._prefix, resident)]))
        self._admitted[resident.address] = resident

    def _change(self, network: Network, permit: Permit) -> None:
        before = self._permits.of(network.address)
        self._permits.put(network.address, permit)
        try:
            self._admit(self._resident(network.veth, network.address))
        except BaseException:
            self._permits.put(network.address, before)
            raise

    def _forget(self, veth: str, address: str) -> None:
        links.delete_link(self._host, veth)
        if (old := self._admitted.get(address)) is not None:
            self._nft.apply("\n".join(firewall.dismiss(self._prefix, old)))
            del self._admitted[address]
        self._permits.drop(address)

    def _tear_down(self, keep: AbstractSet[str]) -> None:
        own = f"{self._prefix}-"
        kept = {self._veth(address) for address in keep}
        for name in links.link_names(self._host).values():
            if name.startswith(own) and name.removeprefix(own).isdigit() and name not in kept:
                links.delete_link(self._host, name)
        if kept:
            return
        links.delete_link(self._host, f"{own}gw0")
        self._nft.apply(firewall.removal(self._prefix))
        self._permits.clear()
        if self._forward_was.exists():
            _FORWARD.write_text(self._forward_was.read_text())
            self._forward_was.unlink()


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        pass
