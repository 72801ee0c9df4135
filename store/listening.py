"""The receiving ends of a bus, the same for NATS and for its twin: a handler, a bounded queue, a responder."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from process import logs
from store.bus import Handler, SubjectResponder

AT_ONCE = 64
BACKLOG = 1024
"""Requests that wait at a responder which has AT_ONCE in hand; past it the oldest goes unanswered."""

_log = logs.get("bus")


class Listening:
    """Interest in a subject. The bus calls `deliver` for each message and fills `on_close`."""

    def __init__(self, subject: str, queue: str = "") -> None:
        self.subject = subject
        self.queue = queue
        """Of several with the same queue name one gets a message."""
        self.number = 0
        self.dropped = 0
        self.closed = False
        self.on_close: Callable[[Listening], Awaitable[None]] | None = None

    def deliver(self, subject: str, data: bytes, reply: str) -> None:
        """Take one message. Never raises, never blocks. `reply`: where an answer is wanted, or empty."""
        raise NotImplementedError

    def __aiter__(self) -> AsyncIterator[tuple[str, bytes]]:
        raise TypeError(f"{self.subject}: only what `subscribe` gives can be iterated over")

    async def close(self) -> None:
        """Hear nothing more. Twice is once."""
        if not self.closed:
            self.closed = True
            if self.on_close is not None:
                await self.on_close(self)


class Handling(Listening):
    """Each message to a handler, at once."""

    def __init__(self, subject: str, handler: Handler) -> None:
        super().__init__(subject)
        self._handler = handler

    def deliver(self, subject: str, data: bytes, reply: str) -> None:
        try:
            self._handler(subject, data)
        except Exception:
            _log.exception("a handler failed", subject=subject)


class Queued(Listening):
    """Messages that wait to be iterated over, `bound` at most: then the oldest goes."""

    def __init__(self, subject: str, bound: int) -> None:
        super().__init__(subject)
        self._messages: deque[tuple[str, bytes]] = deque(maxlen=bound)
        self._arrived = asyncio.Event()

    def deliver(self, subject: str, data: bytes, reply: str) -> None:
        if len(self._messages) == self._messages.maxlen:
            self.dropped += 1
        self._messages.append((subject, data))
        self._arrived.set()

    async def __aiter__(self) -> AsyncIterator[tuple[str, bytes]]:
        while True:
            while self._messages:
                yield self._messages.popleft()
            if self.closed:
                return
            self._arrived.clear()
            await self._arrived.wait()

    async def close(self) -> None:
        await super().close()
        self._arrived.set()


class Answering(Listening):
    """Each request to a responder, AT_ONCE at a time; `publish` sends its answer. A responder that raises answers nothing."""

    def __init__(self, subject: str, responder: SubjectResponder, publish: Callable[[str, bytes], None]) -> None:
        super().__init__(subject, queue="ebb")
        self._responder = responder
        self._publish = publish
        self._waiting: deque[tuple[str, bytes, str]] = deque(maxlen=BACKLOG)
        self._answers: set[asyncio.Task[None]] = set()

    def deliver(self, subject: str, data: bytes, reply: str) -> None:
        if len(self._answers) < AT_ONCE:
            self._begin(subject, data, reply)
            return
        if len(self._waiting) == BACKLOG:
            self.dropped += 1
        self._waiting.append((subject, data, reply))

    async def close(self) -> None:
        await super().close()
        self._waiting.clear()
        for answer in self._answers:
            answer.cancel()
        await asyncio.gather(*self._answers, return_exceptions=True)

    def _begin(self, subject: str, data: bytes, reply: str) -> None:
        answer = asyncio.get_running_loop().create_task(self._answer(subject, data, reply), name=f"answer {self.subject}")
        self._answers.add(answer)
        answer.add_done_callback(self._ended)

    async def _answer(self, subject: str, data: bytes, reply: str) -> None:
        try:
            self._publish(reply, await self._responder(subject, data))
        except Exception:
            _log.exception("a responder failed", subject=self.subject)

    def _ended(self, answer: asyncio.Task[None]) -> None:
        self._answers.discard(answer)
        if self._waiting and not self.closed:
            self._begin(*self._waiting.popleft())
