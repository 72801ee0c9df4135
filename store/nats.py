"""NATS behind the Bus port.

nats-py does the connection: handshake, credentials, TLS, pings, parsing. Two steps are taken out of it, because they are on the
start path: a message goes from its parser straight to the handler (its own way is a queue and a task a subscription), and what
is sent goes straight into the socket (its own way is a task that flushes). Each connection is a client of its own: when one
ends, the next is made and everything is subscribed again.
"""

import asyncio
import random
from typing import Any, cast

import nats.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription as NatsSubscription

from process import logs
from process.identity import BUS, BadIdentity, Identity
from store.bus import Handler, Responder, SubjectResponder
from store.errors import BusUnavailable, NoResponder
from store.listening import Answering, Handling, Listening, Queued
from store.roles import inbox

STEP_TIMEOUT_S = 2
"""For connecting, and for the server to confirm a subscription."""
RETRY_MAX_S = 0.5
WRITE_BUFFER_BYTES = 8 * 2**20
"""What may wait for the server to read it; past that, publications are lost."""

_log = logs.get("bus")
_FAILURES = (nats.errors.Error, OSError, TimeoutError, asyncio.InvalidStateError, BadIdentity)


class NatsBus:
    """A client of the NATS server at `url` (several: comma-separated), connected whenever there is one.

    `start()` it in the event loop that will use it. With an `identity`, nothing is said before TLS stands; each connection takes
    the certificate that is the newest then.
    """

    def __init__(self, url: str, name: str, identity: Identity | None = None) -> None:
        self._url = url
        self._name = name
        self._identity = identity
        self._client: _Client | None = None
        self._wanted: dict[int, Listening] = {}
        self._next = 0
        self._keeper: asyncio.Task[None] | None = None
        self._up = asyncio.Event()
        self.lost = 0
        """Publications lost: no server, a server that does not read, or more than it takes."""

    @property
    def connected(self) -> bool:
        return self._client is not None and self._client.is_connected

    async def start(self, wait_s: float = 1.0) -> None:
        """Begin to connect; returns when connected, or after `wait_s` while there is no server."""
        self._keeper = asyncio.get_running_loop().create_task(self._stay_connected(), name="bus")
        try:
            async with asyncio.timeout(wait_s):
                await self._up.wait()
        except TimeoutError:
            _log.warning("no bus yet; going on without", url=self._url)

    def publish(self, subject: str, data: bytes) -> None:
        client = self._client
        if client is None or not client.write(subject, data):
            self.lost += 1

    async def handle(self, subject: str, handler: Handler) -> Listening:
        return await self._want(Handling(subject, handler))

    async def subscribe(self, subject: str, *, bound: int = 10_000) -> Listening:
        return await self._want(Queued(subject, bound))

    async def respond(self, subject: str, responder: Responder) -> Listening:
        return await self.respond_by_subject(subject, lambda _, data: responder(data))

    async def respond_by_subject(self, subject: str, responder: SubjectResponder) -> Listening:
        return await self._want(Answering(subject, responder, self.publish))

    async def request(self, subject: str, data: bytes, *, timeout_s: float) -> bytes:
        client = self._client
        if client is None or not client.is_connected:
            raise BusUnavailable(f"request {subject}: no connection to {self._url}")
        try:
            answer = await client.request(subject, data, timeout=timeout_s)
        except nats.errors.NoRespondersError:
            raise NoResponder(f"request {subject}: nobody answers this") from None
        except TimeoutError:
            raise NoResponder(f"request {subject}: no answer within {timeout_s:g} s") from None
        except _FAILURES as error:
            raise BusUnavailable(f"request {subject}: {error!r}") from None
        return bytes(answer.data)

    async def close(self) -> None:
        for listening in list(self._wanted.values()):
            await listening.close()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    async def _stay_connected(self) -> None:
        pause_s = 0.05
        while True:
            client = _Client()
            try:
                await client.open(self._url, self._name, self._identity)
                await self._hear_all(client)
                self._client = client
                self._up.set()
                _log.info("bus connected", url=self._url)
                pause_s = 0.05
                await client.ended.wait()
                _log.warning("bus lost; connecting again", url=self._url)
            except _FAILURES as error:
                _log.debug("bus away", url=self._url, error=repr(error))
            finally:
                self._client = None
                await client.end()
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))
            pause_s = min(pause_s * 2, RETRY_MAX_S)

    async def _hear_all(self, client: "_Client") -> None:
        # What is wanted while this runs is heard by the next round.
        while missing := [listening for listening in self._wanted.values() if not client.hears(listening)]:
            for listening in missing:
                await client.hear(listening)
            await client.flush(timeout=STEP_TIMEOUT_S)

    async def _want(self, listening: Listening) -> Listening:
        self._next += 1
        listening.number = self._next
        listening.on_close = self._unwant
        self._wanted[listening.number] = listening
        client = self._client
        if client is not None:
            try:
                await client.hear(listening)
                await client.flush(timeout=STEP_TIMEOUT_S)
            except _FAILURES as error:
                _log.debug("subscribed with the next connection", subject=listening.subject, error=repr(error))
        return listening

    async def _unwant(self, listening: Listening) -> None:
        self._wanted.pop(listening.number, None)
        client = self._client
        if client is not None:
            try:
                await client.unhear(listening)
            except _FAILURES as error:
                _log.debug("not unsubscribed", subject=listening.subject, error=repr(error))


class _Client(Client):
    """One connection."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = asyncio.Event()
        self._by_sid: dict[int, Listening] = {}
        self._heard: dict[int, NatsSubscription] = {}
        self._socket: asyncio.WriteTransport | None = None

    async def open(self, url: str, name: str, identity: Identity | None) -> None:
        """Connect, once. Raises one of _FAILURES."""
        secure: dict[str, Any] = {}
        if identity is not None:
            secure = {"tls": identity.client(), "tls_hostname": BUS, "tls_handshake_first": True}
            secure["inbox_prefix"] = inbox(identity.who.role, identity.who.name).encode()

        async def on_closed() -> None:
            self.ended.set()

        async def on_error(error: Exception) -> None:
            _log.debug("bus says", error=repr(error))

        await self.connect(
            url.split(","),
            name=name,
            error_cb=on_error,
            closed_cb=on_closed,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=STEP_TIMEOUT_S,
            ping_interval=5,
            max_outstanding_pings=2,
            **secure,
        )
        self._socket = made = cast(Any, self._transport)._io_writer.transport
        if identity is not None:
            # nats-py does not tell its reader of the connection over TLS: that could not be paused, and was thought to end by halves.
            made.get_protocol().connection_made(made)

    def write(self, subject: str, data: bytes) -> bool:
        """Publish at once; False when it is lost. Raises ValueError for a subject that would end the command early."""
        if " " in subject or not subject.isprintable():
            raise ValueError(f"subject {subject!r}: spaces and control characters are not allowed")
        size = len(data)
        socket = self._socket
        if not self.is_connected or socket is None or size > self.max_payload:
            return False
        if socket.get_write_buffer_size() > WRITE_BUFFER_BYTES:
            return False
        socket.write(b"PUB %b %d\r\n%b\r\n" % (subject.encode(), size, data))
        return True

    def hears(self, listening: Listening) -> bool:
        return listening.number in self._heard

    async def hear(self, listening: Listening) -> None:
        """Subscribe, unless it is already."""
        if not self.hears(listening):
            self._by_sid[self._sid + 1] = listening  # known before the first message of it can come
            self._heard[listening.number] = await self.subscribe(listening.subject, queue=listening.queue)

    async def unhear(self, listening: Listening) -> None:
        subscription = self._heard.pop(listening.number, None)
        if subscription is not None:
            await subscription.unsubscribe()
            self._by_sid.pop(subscription._id, None)

    async def end(self) -> None:
        """Close; what was published goes out first."""
        try:
            async with asyncio.timeout(STEP_TIMEOUT_S):
                await self.close()
        except _FAILURES as error:
            _log.debug("closing", error=repr(error))

    async def _send_command(self, cmd: bytes, priority: bool = False) -> None:
        # nats-py queues commands for its flusher, but a PING overtakes them: its PONG would not mean that a SUB has been heard.
        if self._socket is None:
            await super()._send_command(cmd, priority)
        else:
            self._socket.write(cmd)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        listening = self._by_sid.get(sid)
        if listening is None:
            await super()._process_msg(sid, subject, reply, data, headers)
        elif not listening.closed:
            listening.deliver(subject.decode(), bytes(data), reply.decode())
