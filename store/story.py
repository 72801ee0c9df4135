"""Telling the story: each step of a wake, deploy or instance goes out as an event, for `ebb story` to print in order."""

import asyncio

from process.clock import Clock
from store import messages
from store.bus import Bus
from store.messages import StoryEvent, StoryEvents
from store.model import encode

TOGETHER_S = 0.05
"""A start is some ten events within milliseconds: those of so long are one message, behind what somebody waits for."""
TOGETHER_MOST = 100


class Story:
    """What `process` tells on `bus`. An event may be lost; telling never raises and never waits. Tell inside the event loop."""

    def __init__(self, bus: Bus, process: str, clock: Clock) -> None:
        self._bus = bus
        self._process = process
        self._clock = clock
        self._untold: list[StoryEvent] = []

    def tell(
        self,
        what: str,
        *,
        cause_id: str = "",
        instance: str = "",
        revision: str = "",
        at: float | None = None,
        **detail: str | int | float,
    ) -> None:
        """One step that happened `at` (wall seconds; now when left out), in the words of the design (`wake sent`)."""
        event = StoryEvent(
            at=self._clock.wall() if at is None else at,
            process=self._process,
            what=what,
            cause_id=cause_id,
            instance=instance,
            revision=revision,
            detail=detail,
        )
        self._untold.append(event)
        if len(self._untold) == 1:
            asyncio.get_running_loop().call_later(TOGETHER_S, self._publish)
        elif len(self._untold) >= TOGETHER_MOST:
            self._publish()

    def _publish(self) -> None:
        if self._untold:
            told, self._untold = self._untold, []
            self._bus.publish(messages.STORY, encode(StoryEvents(events=told)))
