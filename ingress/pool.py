"""The connections that this front door has to one instance: idle ones, and requests that wait for one to be made.

A connection that becomes free goes to who has been dialling longest, so that an instance with a short backlog (5 in Python's
`http.server`) is not a wall for a burst: one SYN may be dropped, the request goes on with the next free connection.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ingress.forward import Exchange


class Pool:
    """`alive_at`: when the instance last answered; `accepted_at`: when it (or its kernel) last accepted; monotonic seconds."""

    __slots__ = ("accepted_at", "alive_at", "dialling", "idle")

    def __init__(self) -> None:
        self.idle: Any = []
        self.dialling: dict[Exchange, None] = {}
        self.alive_at = self.accepted_at = -1.0

    def give(self, back: Any) -> None:
        """`back` is free: for who waits, else for later."""
        if self.dialling:
            exchange = next(iter(self.dialling))
            del self.dialling[exchange]
            exchange.handed(back)
        else:
            self.idle.append(back)
