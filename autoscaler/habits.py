"""Profiles in the form in which they outlive the autoscaler: some hundred bytes each, written rarely. Pure.

A revision that follows its own habits has one key, `habits/<project>/<revision>`, written at most every `EVERY_S` and only when
something was learned since. What is lost in a crash is what was learned in these minutes.
"""

from autoscaler.profile import BINS, Profile
from store.scaling import Habits

EVERY_S = 300.0
AT_ONCE = 50
"""Keys of one write."""


def of(profile: Profile, now: float, wall: float) -> Habits:
    """What is kept of `profile`."""
    return Habits(
        idle=[(index, round(count, 2)) for index, count in enumerate(profile.idle) if count],
        count=profile.count,
        mean_s=round(profile.mean_s, 2),
        off_s=round(profile.off_s, 2),
        crowd=round(profile.crowd, 2),
        start_s=profile.start_s,
        phases_s={name: round(value, 5) for name, value in profile.phases_s.items()},
        busy_at=round(wall - (now - profile.busy_at), 1) if profile.busy_at > float("-inf") else 0.0,
    )


def profile(habits: Habits, now: float, wall: float) -> Profile:
    """The profile again; bins that this version does not know count as the longest."""
    made = Profile()
    for index, count in habits.idle:
        made.idle[max(0, min(BINS, index))] += count
    made.seen = float(sum(made.idle))
    made.count, made.mean_s, made.off_s, made.crowd = habits.count, habits.mean_s, habits.off_s, max(1.0, habits.crowd)
    made.start_s, made.phases_s = habits.start_s, dict(habits.phases_s)
    if habits.busy_at:
        made.busy_at = now - max(0.0, wall - habits.busy_at)
    return made
