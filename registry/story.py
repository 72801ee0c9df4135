"""The story: steps that every process tells, kept in a bounded ring, found again by request, wake, instance or revision."""

from collections import deque
from collections.abc import Iterable

from store.messages import StoryEvent

KEPT = 100_000
TOLD_MAX = 2000


class StoryBook:
    """The last `kept` events. Finding one reads them all: some 20 ms, and only when a person asks."""

    def __init__(self, kept: int = KEPT) -> None:
        self._events: deque[StoryEvent] = deque(maxlen=kept)

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: StoryEvent) -> None:
        self._events.append(event)

    def find(self, about: str) -> list[StoryEvent]:
        """Everything about `about` (a cause id, instance, revision with or without project, or request id), in order of time.

        Events that share a cause or an instance with what was named belong to it.
        """
        named = [event for event in self._events if _names(event, about)]
        causes = {event.cause_id for event in named} - {""}
        instances = {event.instance for event in named} - {""}
        linked = (e for e in self._events if e.cause_id in causes or e.instance in instances or _names(e, about))
        return _ordered(linked)


def _names(event: StoryEvent, about: str) -> bool:
    return (
        about in (event.cause_id, event.instance, event.revision)
        or (bool(event.revision) and event.revision.partition("/")[2] == about)
        or event.detail.get("request_id") == about
    )


def _ordered(events: Iterable[StoryEvent]) -> list[StoryEvent]:
    return sorted(events, key=lambda event: event.at)[-TOLD_MAX:]
