"""The port to the message bus. `store/nats.py` is the real one, `store/memory_bus.py` its twin; one contract suite for both.

What is published may be lost: when nobody listens, when the server is away, when a subscriber is too slow (its bound is
reached and the oldest message goes, counted). Publishing never waits for the network.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

Handler = Callable[[str, bytes], None]
"""Called with (subject, data) on the event loop; must not block."""
Responder = Callable[[bytes], Awaitable[bytes]]
SubjectResponder = Callable[[str, bytes], Awaitable[bytes]]
"""Called with (subject, data)."""


class Subscription(Protocol):
    dropped: int
    """Messages lost because the bound was reached."""

    def __aiter__(self) -> AsyncIterator[tuple[str, bytes]]: ...

    async def close(self) -> None: ...


class Bus(Protocol):
    @property
    def connected(self) -> bool:
        """Whether a server is there now. False: publish loses, request raises at once."""

    def publish(self, subject: str, data: bytes) -> None:
        """Send and forget. Never raises for a bus that is away: counts it."""

    async def handle(self, subject: str, handler: Handler) -> Subscription:
        """Call `handler` for each message on `subject` (NATS wildcards): the fastest way to hear something."""

    async def subscribe(self, subject: str, *, bound: int = 10_000) -> Subscription:
        """Messages as an async iterator of (subject, data)."""

    async def respond(self, subject: str, responder: Responder) -> Subscription:
        """Answer requests on `subject`; of several responders one is asked (a queue group). 64 at once at most."""

    async def respond_by_subject(self, subject: str, responder: SubjectResponder) -> Subscription:
        """The same for a `subject` with wildcards: the responder is told which one was asked."""

    async def request(self, subject: str, data: bytes, *, timeout_s: float) -> bytes:
        """One answer. Raises NoResponder when nobody is there or the time is over."""

    async def close(self) -> None: ...
