"""Who gets nothing new for a moment because requests failed at it, and how it comes back.

    serving ── cannot be connected to ───────────────────▶ ejected 0.1 s, 0.2 s, … ─▶ one request ─▶ connected: serving
    serving ── takes requests and does not answer them ──▶ ejected 1 s, 2 s, … ─────▶ one request ─▶ answered: serving

A failure to connect costs no request, since another instance may have it: any number may be out for that. Without an answer are
requests that ended in a 502 of ours or ran out of time before a first byte, `UNANSWERED_MOST` of them in a row; or the instance is
silent (`ingress/silence.py`). For want of answers at most half of a revision's instances are out: where most fail it is the app
that fails, and hiding its instances would make errors into a line that nobody serves. What an app answers, 5xx or not, is an answer.
"""

from collections.abc import Iterable

from activator.balance import State, Target

CONNECT_FIRST_S = 0.1
ANSWER_FIRST_S = 1.0
EJECT_MOST_S = 10.0
"""Each ejection in a row is twice as long as the one before, up to this."""
UNANSWERED_MOST = 3


def not_connected(target: Target, now: float) -> None:
    """`target` could not be connected to. Failures of one moment count once."""
    if target.ejected_until > now:
        return
    target.doubted = True
    target.failures += 1
    _eject(target, now, CONNECT_FIRST_S, target.failures)


def not_answered(target: Target, among: Iterable[Target], now: float, *, silent: bool = False) -> bool:
    """A request at `target`, one `among` a revision's, got no answer; whether it is ejected now for that."""
    target.doubted = True
    target.unanswered += 1
    if target.ejected_until or not (silent or target.probing or target.unanswered >= UNANSWERED_MOST):
        return False
    serving = [each for each in among if each.state is State.SERVING]
    if 2 * (1 + sum(each.mute or each.ejected_until > 0 for each in serving if each is not target)) > len(serving):
        target.mute = target.probing = False
        return False
    target.mute = True
    target.ejections += 1
    _eject(target, now, ANSWER_FIRST_S, target.ejections)
    return True


def over(target: Target, now: float) -> bool:
    """Whether the ejection of `target` has just ended: from now on it may have one more request than it has, the probe."""
    if not target.ejected_until or target.ejected_until > now:
        return False
    target.ejected_until = 0.0
    target.probing = True
    target.judged_from = now
    return True


def connected(target: Target) -> None:
    """`target` was connected to: enough, unless it is out for want of answers."""
    target.failures = 0
    target.doubted = target.unanswered > 0
    if not target.mute:
        target.ejected_until = 0.0
        target.probing = False


def cleared(target: Target) -> None:
    """`target` answered, or is another than it was: it takes its full share again."""
    target.failures = target.unanswered = target.ejections = 0
    target.ejected_until = 0.0
    target.doubted = target.probing = target.mute = False


def _eject(target: Target, now: float, first_s: float, times: int) -> None:
    target.ejected_until = now + min(EJECT_MOST_S, first_s * 2 ** min(times - 1, 10))
    target.probing = False
