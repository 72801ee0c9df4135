"""When a child that died is started again: pure, time comes in as seconds it ran."""

FIRST_S = 0.2
MOST_S = 10.0
HEALTHY_S = 30.0


class Restarts:
    """Back-off of one child: 200 ms, doubled for each death in a row up to 10 s, forgotten once it ran well for 30 s."""

    __slots__ = ("in_a_row", "total")

    def __init__(self) -> None:
        self.in_a_row = 0
        self.total = 0

    def died(self, ready_for_s: float) -> float:
        """Seconds to wait before the next start. `ready_for_s`: how long it had been ready when it died; 0 if never."""
        if ready_for_s >= HEALTHY_S:
            self.in_a_row = 0
        delay_s = min(FIRST_S * 2.0 ** min(self.in_a_row, 16), MOST_S)
        self.in_a_row += 1
        self.total += 1
        return delay_s
