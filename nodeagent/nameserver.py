"""The name server of instances: answers what `names` knows, and asks the machine's own servers for the rest, on each one's behalf.

It listens at the gateway's address; the kernel leads 169.254.169.254:53 of each instance here, and vouches for who asks.
"""

import asyncio
import contextlib
import secrets
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from nodeagent import names
from nodeagent.names import Fate
from nodeagent.residents import Residents
from nodeagent.resolv import STUB_TRUTH, every_nameserver
from process import logs
from process.run import Jobs

ASKED_MOST = 1024
"""Questions on their way to the machine's servers; beyond, who asks is told to try again."""
ASKED_BY_ONE_MOST = 128
TRY_S = 2.0
"""For one server to answer, then the next is asked."""
TCP_S = 10.0
TCP_MOST = 128
PACKET_BYTES = 65_535
_IP_FREEBIND = 15
_log = logs.get("names")


class NameServer:
    """One for the agent. `dns` are the servers to ask; empty: the machine's, as its resolv.conf says now."""

    def __init__(self, residents: Residents, gateway: str, dns: Sequence[str], jobs: Jobs, inner: Callable[[], bool]) -> None:
        self._residents, self._gateway, self._dns, self._jobs, self._inner = residents, gateway, tuple(dns), jobs, inner
        self._asking: Counter[str] = Counter()
        self._known: tuple[float, tuple[str, ...]] = (-1.0, ())
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen, by UDP and TCP on one port. Raises OSError."""
        for _ in range(16):
            udp = listening(self._gateway, 0, socket.SOCK_DGRAM)
            try:
                tcp = listening(self._gateway, udp.getsockname()[1], socket.SOCK_STREAM)
                break
            except OSError:
                udp.close()
        else:
            raise OSError(f"no port of {self._gateway} is free for both UDP and TCP")
        loop = asyncio.get_running_loop()
        self.port = udp.getsockname()[1]
        self._transport, _ = await loop.create_datagram_endpoint(lambda: _Asked(self._heard), sock=udp)
        self._server = await asyncio.start_server(self._connected, sock=tcp, limit=PACKET_BYTES)

    def stop(self) -> None:
        if self._transport is not None:
            self._transport.close()
        if self._server is not None:
            self._server.close()

    def _heard(self, packet: bytes, peer: tuple[str, int]) -> None:
        assert self._transport is not None
        fate, reply = self._decide(packet, peer[0])
        if fate is Fate.ANSWERED:
            self._transport.sendto(reply, peer)
        elif fate is Fate.FORWARDED:
            self._jobs.start(self._forward(packet, peer), "ask a name server")

    def _decide(self, packet: bytes, address: str) -> tuple[Fate, bytes]:
        outside = self._residents.may_ask(address)
        if outside is None:
            return Fate.DROPPED, b""
        fate, reply = names.decide(packet, self._gateway, inner=self._inner(), outside=outside)
        if fate is Fate.FORWARDED:
            full = self._asking.total() >= ASKED_MOST or self._asking[address] >= ASKED_BY_ONE_MOST
            if full and (asked := names.question(packet)) is not None:
                return Fate.ANSWERED, names.failed(packet, asked, names.SERVFAIL)
        return fate, reply

    async def _forward(self, packet: bytes, peer: tuple[str, int]) -> None:
        with self._counted(peer[0]):
            reply = await self._ask(packet)
        if reply is not None and self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(reply, peer)

    @contextlib.contextmanager
    def _counted(self, address: str) -> Iterator[None]:
        self._asking[address] += 1
        try:
            yield
        finally:
            self._asking[address] -= 1
            if not self._asking[address]:
                del self._asking[address]

    async def _ask(self, packet: bytes) -> bytes | None:
        """An answer of one of the servers, under the id of `packet`; SERVFAIL when none has one in time."""
        # A number and a port of our own for each question: who would forge an answer must guess both.
        own = secrets.token_bytes(2) + packet[2:]
        for server in self._servers():
            try:
                reply = await asyncio.wait_for(_exchange(server, own), TRY_S)
            except (OSError, TimeoutError):
                continue
            return packet[:2] + reply[2:]
        asked = names.question(packet)
        return names.failed(packet, asked, names.SERVFAIL) if asked is not None else None

    def _servers(self) -> tuple[str, ...]:
        now = asyncio.get_running_loop().time()
        if now - self._known[0] > 1 or not self._known[1]:
            self._known = (now, self._dns or every_nameserver(_text(Path("/etc/resolv.conf")), _text(STUB_TRUTH)))
        return self._known[1]

    # -- TCP -------------------------------------------------------------------------------------------------------------------

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = writer.get_extra_info("peername")[0]
        try:
            if self._asking.total() < TCP_MOST:
                with self._counted(address):
                    await asyncio.wait_for(self._converse(reader, writer, address), TCP_S)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> None:
        while True:
            (size,) = struct.unpack("!H", await reader.readexactly(2))
            packet = await reader.readexactly(size)
            fate, reply = self._decide(packet, address)
            if fate is Fate.DROPPED:
                return
            if fate is Fate.FORWARDED:
                reply = await self._ask_by_tcp(packet)
            writer.write(struct.pack("!H", len(reply)) + reply)
            await writer.drain()

    async def _ask_by_tcp(self, packet: bytes) -> bytes:
        for server in self._servers():
            try:
                reader, writer = await asyncio.wait_for(asyncio.open_connection(server, 53), TRY_S)
                try:
                    writer.write(struct.pack("!H", len(packet)) + packet)
                    (size,) = struct.unpack("!H", await asyncio.wait_for(reader.readexactly(2), TRY_S))
                    return await asyncio.wait_for(reader.readexactly(size), TRY_S)
                finally:
                    writer.close()
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                continue
        raise OSError("no name server answers")


def listening(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """A bound socket at an address that the machine may not have yet. Raises OSError."""
    made = socket.socket(socket.AF_INET, kind)
    try:
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        made.bind((address, port))
    except BaseException:
        made.close()
        raise
    return made


class _Asked(asyncio.DatagramProtocol):
    def __init__(self, heard: Callable[[bytes, tuple[str, int]], None]) -> None:
        self._heard = heard

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._heard(data, addr)


class _Answer(asyncio.DatagramProtocol):
    def __init__(self, query: bytes) -> None:
        self._query = query
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if not self.reply.done() and names.answers(data, self._query):
            self.reply.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(exc)


async def _exchange(server: str, query: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    transport, answer = await loop.create_datagram_endpoint(lambda: _Answer(query), remote_addr=(server, 53))
    try:
        transport.sendto(query)
        return await answer.reply
    finally:
        transport.close()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
