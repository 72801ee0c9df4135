"""Whose turns at a processor are short: those of instances that used little of one lately.

Who wakes with short turns goes before whoever is in the middle of a long one (`process.turns`), so a service that works now and then does
not wait for a neighbour that burns. Given to all they would put nobody before another; so who uses more than a part of a processor has
long ones. How much anybody gets is by weight all the same.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from nodeagent import cgroups
from nodeagent.cgroups import Mode, Places
from process import turns

EVERY_S = 1.0
CALM_M, BUSY_M = 250, 500
"""Thousandths of a processor: who uses less than the first is quiet, who uses the second is busy."""
CALM_AFTER, FIRST_AFTER = 10, 2
"""Quiet looks in a row that make an instance calm, and one that is new and was never otherwise. It is lost at once: who burns, rests and
burns again has long turns all the while."""


class Turns:
    """Calm and other instances, by their use between one look and the next. Pure."""

    def __init__(self) -> None:
        self._used: dict[str, tuple[float, float]] = {}
        self._quiet: dict[str, int] = {}
        """Quiet looks in a row; of one that is calm, looks since the first of them."""

    def look(self, used_s: Mapping[str, float], now: float) -> dict[str, bool]:
        """Whose threads to tell, and whether short turns (True) or long ones. `used_s`: seconds of processors since its start, of every
        instance that runs; `now`: monotonic seconds.

        A thread has the turns of who started it. So busy ones are told each time, and calm ones twice: one that began while the others
        were being told is missed the first time."""
        tell: dict[str, bool] = {}
        quiet: dict[str, int] = {}
        for name, used in used_s.items():
            before = self._used.get(name)
            if before is None or now <= before[0]:
                continue
            rate_m, looks = (used - before[1]) * 1000 / (now - before[0]), self._quiet.get(name, CALM_AFTER - FIRST_AFTER)
            looks = looks + 1 if rate_m < (BUSY_M if looks >= CALM_AFTER else CALM_M) else 0
            quiet[name] = looks
            if rate_m >= BUSY_M:
                tell[name] = False
            elif CALM_AFTER <= looks < CALM_AFTER + 2:
                tell[name] = True
        self._used = {name: (now, used) for name, used in used_s.items()}
        self._quiet = quiet
        return tell


def give(decided: Turns, mode: Mode, places: Places, running: Iterable[str], now: float, root: Path = cgroups.ROOT) -> None:
    """Look at those that run, and tell their threads. Blocks on files, some 20 µs an instance."""
    used_s: dict[str, float] = {}
    for name in running:
        try:
            used_s[name] = cgroups.cpu_s(mode, places.of(name), root)
        except (OSError, ValueError):
            continue  # It is gone.
    for name, short in decided.look(used_s, now).items():
        try:
            threads = cgroups.threads(mode, places.of(name), root)
        except (OSError, ValueError):
            continue
        for thread in threads:
            turns.ask(thread, turns.SHORT_US if short else 0)
