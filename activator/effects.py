"""What a throttler decides and its shell (`admitter`) carries out."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from activator.balance import Target

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Dispatch(Generic[R]):
    """Send `request` to `target`; its slot is reserved, `waited_s` it stood in line."""

    request: R
    target: Target
    waited_s: float


@dataclass(frozen=True, slots=True)
class Refuse(Generic[R]):
    """Answer `request` with an error. `reason` is a row of ingress/refusals.py."""

    request: R
    reason: str
    message: str = ""
    retry_after_s: float = 0


@dataclass(frozen=True, slots=True)
class WakeUp:
    """Tell the autoscaler that `waiting` requests wait and nothing serves."""

    waiting: int
    cause_id: str
    unheard: bool = False
    """Several went out before and nothing came of them: say it another way too."""


@dataclass(frozen=True, slots=True)
class DrainedNow:
    """Nothing of ours is in flight at `instance` of `node`, nor will be before there is newer news than `seq` of it."""

    instance: str
    node: str
    seq: int


@dataclass(frozen=True, slots=True)
class Swelling:
    """More wait than what serves and comes will have served soon: the autoscaler shall not hear of it in a second only."""


@dataclass(frozen=True, slots=True)
class Spare:
    """`slots` of `instance` that were borrowed are not needed: they go back to their owner."""

    instance: str
    slots: int


Effect = Dispatch[R] | Refuse[R] | WakeUp | DrainedNow | Swelling | Spare
NOTHING: tuple[()] = ()
