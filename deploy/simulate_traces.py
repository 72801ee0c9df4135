"""Callers for the simulator, drawn from published distributions of a large provider's functions ("Serverless in the Wild", 2020).

Rates: 45 % of apps at most one call an hour, 81 % at most one a minute. A fifth of the apps are timers, two fifths have calls that
come by themselves (Poisson), two fifths come in bursts (gamma, coefficient of variation 2 to 10); calls by people follow the
day. That is the mix `wild`; the others shift it, so that nothing is fitted to one. Mean durations are log-normal (μ −0.38, σ 2.36 of
seconds), memory is Burr. The rarest rates and the longest tail of the busiest apps are cut, so that a day can be played: at most
`MOST_PER_S` calls a second.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

DAY_S = 86_400.0
MOST_PER_S = 2.0


@dataclass(frozen=True, slots=True)
class Trace:
    """One app's habits: `kind` is timer, poisson or burst."""

    seed: int
    kind: str
    rate_per_s: float
    variation: float
    """Coefficient of variation of the times between calls."""
    duration_s: float
    """Mean of a call."""
    memory_bytes: int
    boot_s: float
    diurnal: bool
    phase: float
    """Of the day, 0…1; of a timer, of its period."""

    def calls(self, until: float) -> Iterator[tuple[float, float]]:
        """(when, how long) of every call up to `until`, the same each time."""
        chance = random.Random(self.seed)
        between = 1 / self.rate_per_s
        at = self.phase * between if self.kind == "timer" else chance.random() * between
        shape = 1 / self.variation**2
        while at < until:
            if not self.diurnal or chance.random() < 0.5 + 0.5 * math.sin(2 * math.pi * (at / DAY_S + self.phase)) ** 2:
                yield at, min(60.0, max(0.001, self.duration_s * chance.lognormvariate(-0.125, 0.5)))
            if self.kind == "timer":
                at += between * chance.uniform(0.99, 1.01)
            else:
                at += max(1e-3, chance.gammavariate(shape, between / shape))


@dataclass(frozen=True, slots=True)
class Mix:
    """Shares of apps with at most one call an hour, and a minute; weights of timer, poisson and burst."""

    hourly: float
    minutely: float
    kinds: tuple[float, float, float]


MIXES = {
    "wild": Mix(0.45, 0.81, (0.2, 0.4, 0.4)),
    "timers": Mix(0.45, 0.81, (0.6, 0.2, 0.2)),
    "people": Mix(0.30, 0.81, (0.0, 0.2, 0.8)),
    "rare": Mix(0.70, 0.97, (0.2, 0.4, 0.4)),
    "chance": Mix(0.30, 0.85, (0.0, 1.0, 0.0)),
}


TAIL = 0.6
"""The exponent of the busiest apps' rates: Pareto, from one call a minute on."""


def most_per_s(count: int, until: float, calls: float, mix: str = "wild") -> float:
    """The most calls a second of one app such that `count` apps have about `calls` up to `until`."""
    each = calls / (count * until) / (1 - MIXES[mix].minutely) * 60  # Calls a minute of one of the busy ones, on average.
    most: float = max(1.0, (each - 1) * (1 - TAIL) + 1) ** (1 / (1 - TAIL))
    return min(MOST_PER_S, most / 60)


def draw(seed: int, count: int, mix: str = "wild", most: float = MOST_PER_S) -> list[Trace]:
    """`count` apps from one seed, none with more than `most` calls a second."""
    chance = random.Random(seed)
    return [_app(chance, seed * 1_000_003 + number, MIXES[mix], most) for number in range(count)]


def _app(chance: random.Random, seed: int, mix: Mix, most: float) -> Trace:
    where = chance.random()
    if where < mix.hourly:
        rate = _log_uniform(chance, 1 / DAY_S, 1 / 3600)
    elif where < mix.minutely:
        rate = _log_uniform(chance, 1 / 3600, 1 / 60)
    else:
        rate = min(most, (1 / 60) * chance.paretovariate(TAIL))
    kind = chance.choices(("timer", "poisson", "burst"), mix.kinds)[0]
    memory_mb = min(1500.0, 107.083 * ((1 - chance.random()) ** (-1 / 0.221) - 1) ** (1 / 11.652))
    return Trace(
        seed=seed,
        kind=kind,
        rate_per_s=rate,
        variation={"timer": 0.01, "poisson": 1.0}.get(kind, chance.uniform(2, 10)),
        duration_s=min(60.0, max(0.001, chance.lognormvariate(-0.38, 2.36))),
        memory_bytes=int(max(16.0, memory_mb)) << 20,
        boot_s=min(20.0, chance.lognormvariate(math.log(0.5), 1.0)),
        diurnal=kind != "timer" and chance.random() < 0.5,
        phase=chance.random(),
    )


def _log_uniform(chance: random.Random, low: float, high: float) -> float:
    return math.exp(chance.uniform(math.log(low), math.log(high)))
