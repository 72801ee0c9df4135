"""Why a revision has the instances it has: the answer to `ebb.why`, given by the autoscaler that leads."""

from autoscaler.active import Made
from autoscaler.mind import Mind
from autoscaler.profile import Profile
from store.messages import AskWhy, Why, WhyDecision, WhyRevision, WhyStep
from store.model import RevisionKey, decode, encode

MOST = 50
"""Revisions of one answer."""


def answer(mind: Mind, question: bytes) -> bytes:
    """The encoded Why to an encoded AskWhy. Raises msgspec.MsgspecError when the question cannot be read."""
    asked = decode(AskWhy, question).revisions[:MOST]
    return encode(Why(revisions=[explain(mind, key) for key in asked]))


def explain(mind: Mind, key: RevisionKey) -> WhyRevision:
    """What stands of `key`, what was learned of it, and its last decisions, oldest first."""
    standing = mind.fleet.standing(key)
    profile = mind.profiles.get(key)
    return WhyRevision(
        revision=key,
        ready=standing.ready,
        starting=standing.starting,
        profile=habits(profile) if profile is not None else {},
        decisions=[told(made) for made in mind.history.of(key)],
    )


def told(made: Made) -> WhyDecision:
    """A decision as it is sent."""
    return WhyDecision(
        at=made.at,
        desired=made.decision.desired,
        reason=made.decision.reason,
        ready=made.ready,
        starting=made.starting,
        excess_burst_capacity=made.decision.excess_burst_capacity,
        outcome=made.outcome,
        cause_id=made.cause_id,
        steps=[WhyStep(rule=step.rule, value=step.value, why=step.why) for step in made.decision.steps],
    )


def habits(profile: Profile) -> dict[str, float]:
    """The profile in numbers; nothing of what was never seen."""
    found: dict[str, float] = {}
    if profile.seen:
        found |= {"idle_seen": round(profile.seen, 1)}
        found |= {f"idle_p{share}_s": round(profile.within(share / 100), 1) for share in (5, 50, 95)}
    if profile.pace.service_s():
        found["call_s"] = round(profile.pace.service_s(), 4)
    if profile.pace.bend():
        found["bend"] = profile.pace.bend()
    if profile.memory_bytes:
        found |= {"memory_bytes": profile.memory_bytes, "cpu_m": round(profile.cpu_m, 1)}
    if profile.footprint is not None:
        each_m, call_s = profile.footprint.cpu_m.each(), profile.pace.service_s()
        taken = {"call_cpu_m": round(each_m, 1), "call_cpu_s": round(each_m / 1000 * call_s, 6)}
        taken |= {"call_memory_bytes": round(profile.footprint.memory_bytes.each())}
        found |= {name: value for name, value in taken.items() if value}
    if profile.start_s:
        found["start_s"] = round(profile.start_s, 4)
    return found | {f"start_{name}_s": round(value, 4) for name, value in sorted(profile.phases_s.items())}
