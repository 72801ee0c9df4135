"""Telling the story: each step of a wake, deploy or instance goes out as an event, for `ebb story` to print in order."""

from process.clock import Clock
from store import messages
from store.bus import Bus
from store.messages import StoryEvent
from store.model import encode


class Story:
    """What `process` tells on `bus`. An event may be lost; telling never raises and never waits."""

    def __init__(self, bus: Bus, process: str, clock: Clock) -> None:
        self._bus = bus
        self._process = process
        self._clock = clock

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
        self._bus.publish(messages.STORY, encode(event))
