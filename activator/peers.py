"""The connections between the workers of a front door. Each worker dials all others and speaks on what it has dialled.

On one machine they are Unix sockets, of which only our own user may speak: when one ends or is refused, its process has ended, for
so the kernel has it; nobody ever closes one that still stands. Between machines it is TCP, and only the end of a connection
together with that of the member's key says that a worker is gone; a machine that falls silent ends it within `SILENT_S`. No HTTP goes
over them, so nobody can forge a request with them.
"""

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from activator.loans import Loans
from activator.wire import Hello, Unpacker, Word, pack
from process import logs
from process.clock import Clock
from process.ids import short_id

log = logs.get("activator")

DIAL_TIME_S = 2.0
AGAIN_S = 0.1
SAID_EVERY = 100
"""Failures to dial in a row of which one is logged."""
BACKLOG = 1024
SILENT_S = 5
"""A machine that acknowledges nothing for so long is off, or cut off."""


def machine() -> str:
    """This machine since its last boot: processes that name the same see each other's sockets end."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Secure(Protocol):
    """How workers of several machines know each other over TCP: asked for each connection, so certificates may change."""

    server_name: str
    """What a worker that is dialled is called in its certificate."""

    def client(self) -> ssl.SSLContext: ...
    def server(self) -> ssl.SSLContext: ...

    def admits(self, transport: Any) -> bool:
        """Whether who has dialled us, and showed a certificate of the cluster's, is a worker."""


class Peers:
    """`await listen()`, tell who is there by `start`, `known` and `unknown`; `close()` when nothing is held any more.

    `where` is a directory for a Unix socket, or `host:port` where workers of other machines can reach us; there, `secure` is asked
    whom to speak with, and without it everybody who reaches the port is taken for a worker.
    """

    def __init__(
        self,
        loans: Loans,
        clock: Clock,
        where: str,
        stir: Callable[[], None],
        fatal: Callable[[], None],
        secure: Secure | None = None,
    ) -> None:
        self.address = ""
        self.secure = secure
        self.fatal = fatal
        self.machine = machine()
        self._loans = loans
        self._me = loans.ownership.me
        self._now = clock.now
        self._where = where
        self._stir = stir
        self._sock: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._speakers: dict[str, _Speaker] = {}
        self._dials: dict[str, asyncio.Task[None]] = {}
        self._addresses: dict[str, tuple[str, str]] = {}
        self._listeners: set[_Listener] = set()
        loans.send = self._send

    def listen(self) -> None:
        """Be reachable: from the moment somebody may know of us. Who dials waits until `start`. Raises OSError."""
        try:
            self._bind()
        except (OSError, ValueError) as error:
            raise OSError(
                f"--peers {self._where}: {error}; want a directory that can be written, or HOST:PORT, or nothing for a worker alone"
            ) from None

    def _bind(self) -> None:
        if self._where.startswith("/"):
            directory = Path(self._where)
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _clear(directory)
            self.address = str(directory / f"{short_id(12)}.sock")
            made = directory / f".{short_id(12)}"
            self._sock = socket.socket(socket.AF_UNIX)
            self._sock.bind(str(made))
            os.chmod(made, 0o600)
            self._sock.listen(BACKLOG)
            # Named only now: a socket that refuses is taken for that of a dead worker, and away.
            made.rename(self.address)
        else:
            host, _, port = self._where.rpartition(":")
            if host.strip("[]") in ("", "0.0.0.0", "::"):
                raise ValueError("the other machines are told this address, so it must be one of this machine's own")
            self._sock = socket.create_server((host.strip("[]"), int(port)), family=_family(host))
            self._sock.listen(BACKLOG)
            self.address = f"{host}:{self._sock.getsockname()[1]}"

    async def start(self, others: dict[str, tuple[str, str]]) -> None:
        """Who is there already: name → (machine, address)."""
        self._loans.start({name: self._local(*where) for name, where in others.items()}, self._now())
        self._addresses.update(others)
        loop = asyncio.get_running_loop()
        assert self._sock is not None, "listen() comes first"
        if self._where.startswith("/"):
            self._server = await loop.create_unix_server(lambda: _Listener(self), sock=self._sock, backlog=BACKLOG)
        else:
            tls = self.secure.server() if self.secure is not None else None
            self._server = await loop.create_server(lambda: _Listener(self), sock=self._sock, backlog=BACKLOG, ssl=tls)
        for name in others:
            self._dial(name)

    def known(self, name: str, where: str, address: str) -> None:
        self._addresses[name] = (where, address)
        self._loans.known(name, self._now(), local=self._local(where, address))
        self._dial(name)

    def unknown(self, name: str) -> None:
        self._addresses.pop(name, None)
        self._loans.unknown(name, self._now())

    def close(self) -> None:
        """The last: whoever sees his connection end believes us dead."""
        for dial in self._dials.values():
            dial.cancel()
        if self._server is not None:
            self._server.close()
        for speaker in self._speakers.values():
            speaker.end()
        for listener in self._listeners:
            listener.end()
        if self.address.startswith("/"):
            Path(self.address).unlink(missing_ok=True)

    # -- inside ---------------------------------------------------------------------------------------------------------------

    def _send(self, peer: str, word: Word) -> None:
        speaker = self._speakers.get(peer)
        if speaker is not None:
            speaker.say(word)

    def _dial(self, name: str) -> None:
        if name not in self._speakers and name not in self._dials and name in self._addresses:
            where, address = self._addresses[name]
            job = asyncio.get_running_loop().create_task(self._dial_until(name, self._local(where, address), address))
            self._dials[name] = job
            job.add_done_callback(lambda _: self._dials.pop(name, None))

    async def _dial_until(self, name: str, local: bool, address: str) -> None:
        """Until it stands, is refused for good, or nobody speaks of that worker any more."""
        loop = asyncio.get_running_loop()
        speaker, failures = _Speaker(self, name), 0
        while name in self._loans.ownership.peers:
            try:
                async with asyncio.timeout(DIAL_TIME_S):
                    if address.startswith("/"):
                        if not local:
                            raise OSError(f"{address} is a socket of another machine; give --peers HOST:PORT there")
                        await loop.create_unix_connection(lambda: speaker, address)
                    else:
                        await self._connect(speaker, address)
                return
            except (ConnectionRefusedError, FileNotFoundError) as error:
                log.info("a worker is gone", worker=name, error=str(error))
                if local:
                    self.lost(name)
                    return
            except (OSError, TimeoutError) as error:
                if failures % SAID_EVERY == 0:
                    log.warning("a worker cannot be spoken to", worker=name, address=address, error=str(error) or "no answer")
                failures += 1
            await asyncio.sleep(AGAIN_S)

    async def _connect(self, speaker: "_Speaker", address: str) -> None:
        host, _, port = address.rpartition(":")
        tls: dict[str, Any] = {}
        if self.secure is not None:
            tls = {"ssl": self.secure.client(), "server_hostname": self.secure.server_name}
        await asyncio.get_running_loop().create_connection(lambda: speaker, host.strip("[]"), int(port), **tls)

    def _local(self, machine: str, address: str) -> bool:
        """Whether the end of a connection proves that a worker has ended: a stopped one's TCP may end before it does."""
        return machine == self.machine and address.startswith("/")

    # -- for the connections --------------------------------------------------------------------------------------------------

    def hello(self) -> Hello:
        return Hello(self._me, self.machine, self.address)

    def stands(self, name: str, speaker: "_Speaker") -> None:
        self._speakers[name] = speaker
        self._loans.up(name, self._now())

    def greeted(self, hello: Hello, listener: "_Listener") -> None:
        self._listeners.add(listener)
        self.known(hello.name, hello.machine, hello.address)

    def told(self, name: str, word: Word) -> None:
        self._loans.told(name, word, self._now())

    def lost(self, name: str) -> None:
        """A connection with `name` ended: both do."""
        speaker = self._speakers.pop(name, None)
        if speaker is not None:
            speaker.end()
        for each in [each for each in self._listeners if each.name == name]:
            self._listeners.discard(each)
            each.end()
        self._loans.lost(name, self._now())
        self._stir()
        peer = self._loans.ownership.peers.get(name)
        if peer is not None and not peer.dead:
            self._dial(name)  # Of another machine: perhaps only the network was away.


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _watch(sock: Any) -> None:
    """Have the kernel end a TCP connection whose other end is silent for `SILENT_S`, said or unsaid words."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_S * 1000)


def _clear(directory: Path) -> None:
    """Take away the sockets of workers that were killed."""
    for path in directory.glob("*.sock"):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except OSError:
                continue


class _Speaker(asyncio.Protocol):
    """What we have dialled. Words of one turn of the loop go out together."""

    def __init__(self, peers: Peers, name: str) -> None:
        self._peers = peers
        self._name = name
        self._transport: Any = None
        self._words: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        sock = transport.get_extra_info("socket")
        if sock.family != socket.AF_UNIX:
            _watch(sock)
        self.say(self._peers.hello())
        self._peers.stands(self._name, self)

    def say(self, word: Word) -> None:
        if not self._words:
            asyncio.get_running_loop().call_soon(self._flush)
        self._words.append(pack(word))

    def _flush(self) -> None:
        words, self._words = self._words, []
        if self._transport is not None:
            self._transport.write(b"".join(words))

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport is not None:
            self._transport = None
            self._peers.lost(self._name)

    def end(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()


class _Listener(asyncio.Protocol):
    """What was dialled by another."""

    def __init__(self, peers: Peers) -> None:
        self.name = ""
        self._peers = peers
        self._transport: Any = None
        self._unpacker = Unpacker()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        sock = transport.get_extra_info("socket")
        if sock.family == socket.AF_UNIX:
            uid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
            if uid not in (0, os.geteuid()):
                log.warning("a stranger wanted to speak to the workers", uid=uid)
                self.end()
            return
        _watch(sock)
        secure = self._peers.secure
        if secure is not None and not secure.admits(transport):
            log.warning("a stranger wanted to speak to the workers", address=str(transport.get_extra_info("peername")))
            self.end()

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        try:
            words = self._unpacker.feed(data)
        except ValueError as error:
            # To end the connection would say that we are dead; so we are to be soon, in good order.
            log.error("a worker speaks another language: this one ends", worker=self.name, error=str(error))
            self._peers.fatal()
            return
        for word in words:
            if self._transport is None:
                return
            if isinstance(word, Hello):
                self.name = word.name
                self._peers.greeted(word, self)
            elif self.name:
                self._peers.told(self.name, word)

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport is not None:
            self._transport = None
            if self.name:
                self._peers.lost(self.name)

    def end(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
