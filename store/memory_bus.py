"""The bus's twin in memory: several clients of one hub. What is published arrives in the event loop's next turn.

Faults to order: `hub.up = False` (the server is away), `hub.lose_next`.
"""

import asyncio
import random
from collections.abc import Callable

from store.bus import Handler, Responder, SubjectResponder
from store.errors import BusUnavailable, NoResponder
from store.listening import Answering, Handling, Listening, Queued


class MemoryHub:
    """What a NATS server is to its clients. `latency_s` passes between publication and arrival."""

    def __init__(self, *, latency_s: float = 0, choose: Callable[[int], int] | None = None) -> None:
        self.up = True
        self.latency_s = latency_s
        self._choose = choose or random.randrange
        self._listening: dict[int, Listening] = {}
        self._next = 0
        self._to_lose = 0

    def client(self) -> "MemoryBus":
        return MemoryBus(self)

    def lose_next(self, messages: int = 1) -> None:
        """The next `messages` published go nowhere."""
        self._to_lose += messages

    def add(self, listening: Listening) -> None:
        self._next += 1
        listening.number = self._next
        self._listening[listening.number] = listening

    def remove(self, listening: Listening) -> None:
        self._listening.pop(listening.number, None)

    def send(self, subject: str, data: bytes, reply: str = "") -> bool:
        """Whether anybody will get it."""
        if self._to_lose:
            self._to_lose -= 1
            return True  # the sender cannot know
        loop = asyncio.get_running_loop()
        takers = self._takers(subject)
        for listening in takers:
            if self.latency_s:
                loop.call_later(self.latency_s, self._arrive, listening, subject, data, reply)
            else:
                loop.call_soon(self._arrive, listening, subject, data, reply)
        return bool(takers)

    def _takers(self, subject: str) -> list[Listening]:
        hearing = [listening for listening in self._listening.values() if matches(listening.subject, subject)]
        takers = [listening for listening in hearing if not listening.queue]
        for queue in sorted({(listening.queue, listening.subject) for listening in hearing if listening.queue}):
            members = [listening for listening in hearing if (listening.queue, listening.subject) == queue]
            takers.append(members[self._choose(len(members))])
        return takers

    def _arrive(self, listening: Listening, subject: str, data: bytes, reply: str) -> None:
        if self.up and not listening.closed:
            listening.deliver(subject, data, reply)


class MemoryBus:
    """A Bus in memory: one client of `hub` (by default of a hub of its own)."""

    def __init__(self, hub: MemoryHub | None = None) -> None:
        self.hub = hub or MemoryHub()
        self.lost = 0
        self._mine: set[Listening] = set()
        self._inboxes = 0

    @property
    def connected(self) -> bool:
        return self.hub.up

    def publish(self, subject: str, data: bytes) -> None:
        if " " in subject or not subject.isprintable():
            raise ValueError(f"subject {subject!r}: spaces and control characters are not allowed")
        if self.hub.up:
            self.hub.send(subject, bytes(data))
        else:
            self.lost += 1

    async def handle(self, subject: str, handler: Handler) -> Listening:
        return self._want(Handling(subject, handler))

    async def subscribe(self, subject: str, *, bound: int = 10_000) -> Listening:
        return self._want(Queued(subject, bound))

    async def respond(self, subject: str, responder: Responder) -> Listening:
        return await self.respond_by_subject(subject, lambda _, data: responder(data))

    async def respond_by_subject(self, subject: str, responder: SubjectResponder) -> Listening:
        return self._want(Answering(subject, responder, self.publish))

    async def request(self, subject: str, data: bytes, *, timeout_s: float) -> bytes:
        if not self.hub.up:
            raise BusUnavailable(f"request {subject}: no connection")
        self._inboxes += 1
        inbox = f"_INBOX.{id(self):x}.{self._inboxes}"
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        listening = await self.handle(inbox, lambda _, got: None if answer.done() else answer.set_result(got))
        try:
            if not self.hub.send(subject, bytes(data), inbox):
                raise NoResponder(f"request {subject}: nobody answers this")
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise NoResponder(f"request {subject}: no answer within {timeout_s:g} s") from None
        finally:
            await listening.close()

    async def close(self) -> None:
        for listening in list(self._mine):
            await listening.close()

    def _want(self, listening: Listening) -> Listening:
        listening.on_close = self._unwant
        self._mine.add(listening)
        self.hub.add(listening)
        return listening

    async def _unwant(self, listening: Listening) -> None:
        self._mine.discard(listening)
        self.hub.remove(listening)


def matches(pattern: str, subject: str) -> bool:
    """Whether NATS gives `subject` to a subscription of `pattern`: `*` is one token, `>` is all the rest."""
    wanted, got = pattern.split("."), subject.split(".")
    for index, token in enumerate(wanted):
        if token == ">":
            return len(got) > index
        if index >= len(got) or token not in ("*", got[index]):
            return False
    return len(wanted) == len(got)
