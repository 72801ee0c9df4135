"""`deploy/bench choose`: what admission to a warm instance costs by itself: choose one, count the request in, count it out.

The real throttler, no sockets, one core, by CPU time; the best of several rounds, since what the machine does besides only adds.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from activator.throttler import Throttler
from store.lifecycle import Phase
from store.model import Instance

CASES = ((1, 0), (1, 80), (4, 0), (4, 80), (8, 80), (20, 80), (200, 80))
"""(instances, container_concurrency)."""
IN_FLIGHT = 3
"""Requests that each instance has already."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(prog="deploy/bench choose", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work")
    options = parser.parse_args(argv)
    rounds, count = (3, 20_000) if options.quick else (7, 200_000)
    figures: dict[str, float] = {}
    table = Table(title="decisions a second on one core (goal 1,000,000)", box=None)
    for column in ("instances", "limit", "choose and count in", "and count out again"):
        table.add_column(column, justify="right")
    for instances, limit in CASES:
        chosen, both = (max(figure) for figure in zip(*(measure(instances, limit, count) for _ in range(rounds)), strict=True))
        figures[f"choose.{instances}x{limit}_per_s"] = round(chosen)
        figures[f"choose.{instances}x{limit}_with_release_per_s"] = round(both)
        table.add_row(str(instances), str(limit or "none"), f"{chosen:,.0f}", f"{both:,.0f}")
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    Console().print(table)
    return 0


def measure(instances: int, limit: int, count: int) -> tuple[float, float]:
    """(reservations, reservations with their releases) a second of CPU; never one above a limit."""
    throttler: Throttler[Any] = Throttler("bench/r1", limit)
    for place in range(instances):
        name, address = f"i{place}", f"10.0.0.1:{place + 1}"
        news = Instance(instance=name, project="bench", revision="r1", node="n", phase=Phase.READY, address=address, seq=1)
        throttler.heard(news, 0.0, stored=True)
    for _ in range(IN_FLIGHT * instances):
        throttler.reserve(0.0, 0.5)
    # As many at a time as fit, so that what is measured is a choice among instances with room and not a full house.
    batch = min(1_000, instances * ((limit or 1_000) - IN_FLIGHT) // 2)
    chances = [(place * 0.618_033_988) % 1.0 for place in range(batch)]
    spent_in = spent_out = 0.0
    turns = max(1, count // batch)
    reserve, release = throttler.reserve, throttler.release
    for _ in range(turns):
        begun = time.process_time()
        taken = [reserve(1.0, chance) for chance in chances]
        between = time.process_time()
        for target in taken:
            release(target, 1.0)  # type: ignore[arg-type]
        spent_out += time.process_time() - between
        spent_in += between - begun
    assert all(taken), "an instance had room and was not chosen"
    assert throttler.in_flight == IN_FLIGHT * instances
    return turns * batch / spent_in, turns * batch / (spent_in + spent_out)


if __name__ == "__main__":
    sys.exit(main())
