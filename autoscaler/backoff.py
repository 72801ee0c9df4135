"""Failed starts of one revision in a row: wait 1 s, then twice as long each time, at most 300 s.

Several instances that were started together and fail together are one failure. An instance that was ready for `WELL_S` before it
failed is no failed start; and only after so long does a start end the row, so that an app which listens and then dies at once
is a crash loop too. Times are wall seconds: the row outlives this process in `Scale.failure`.
"""

from dataclasses import dataclass

from store.model import Failure, Instance

FIRST_S = 1.0
LONGEST_S = 300.0
WELL_S = 10.0


@dataclass(frozen=True, slots=True)
class Row:
    """Failed starts in a row; `count` 0 is none."""

    count: int = 0
    failed_at: float = 0.0
    retry_at: float = 0.0

    def wait_s(self, now: float) -> float:
        """How long until the next start may be tried; 0 when it may."""
        return max(0.0, self.retry_at - now)


def delay_s(count: int) -> float:
    """The wait after `count` failures in a row."""
    return min(LONGEST_S, FIRST_S * 2.0 ** min(count - 1, 20)) if count > 0 else 0.0


def failed(row: Row, assigned_at: float, now: float) -> Row:
    """One more start failed; it was assigned at `assigned_at`."""
    if row.count and assigned_at <= row.failed_at:
        return row
    return Row(row.count + 1, now, now + delay_s(row.count + 1))


def was_start(ready_since: float | None, now: float) -> bool:
    """Whether an instance that failed now, and was ready since then or never, counts as a failed start."""
    return ready_since is None or now - ready_since < WELL_S


def restored(failure: Failure | None) -> Row:
    """The row as the last autoscaler left it."""
    return Row(failure.count, failure.at, failure.retry_at) if failure is not None else Row()


def record(row: Row, status: Instance, now: float) -> Failure:
    """What is kept in `Scale.failure` about the failed `status`."""
    cause = status.failure
    if cause is None:
        cause = Failure(reason="StartFailed", message=f"instance {status.instance} failed and its node did not say why")
    return Failure(
        reason=cause.reason,
        message=cause.message,
        exit_code=cause.exit_code,
        log_tail=cause.log_tail[-20:],
        at=now,
        count=row.count,
        retry_at=row.retry_at,
    )
