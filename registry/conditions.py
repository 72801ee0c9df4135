"""Conditions: how each object says what it is waiting for or what went wrong, in words a person can act on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from registry.objects import Object
from store.lifecycle import Phase
from store.model import Failure, Instance, Scale

TRUE, FALSE, UNKNOWN = "True", "False", "Unknown"
MESSAGE_MAX = 1024
UNPLACED_GRACE_S = 5.0
"""An instance without room may find some in a moment; after this it is said as a failure."""

_PHASE_WORDS = {
    Phase.PENDING: "waiting for its node",
    Phase.PULLING: "pulling the image",
    Phase.PARKED: "prepared",
    Phase.STARTING: "started, waiting for its readiness probe",
    Phase.READY: "ready",
    Phase.FROZEN: "frozen",
    Phase.DRAINING: "draining",
    Phase.STOPPED: "stopped",
    Phase.FAILED: "failed",
}


@dataclass(frozen=True, slots=True)
class Resolution:
    """What is known of a revision's image: the digest, or why there is none after `attempts`."""

    image: str = ""
    reason: str = ""
    message: str = ""
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class RevisionFacts:
    """What a revision's status is made from. `progress` is how far its image's pull is, `nodes` how many nodes live."""

    created_at: float
    deadline_s: float
    image: str
    resolution: Resolution | None = None
    resolved: bool = False
    scale: Scale | None = None
    instances: Sequence[Instance] = ()
    progress: str = ""
    nodes: int = 0
    was_ready: bool = False
    leftover: bool = False
    """An earlier revision of the same name is not gone yet."""


def condition(kind: str, status: str, reason: str = "", message: str = "", severity: str = "") -> Object:
    """One condition, without its time."""
    made: Object = {"type": kind, "status": status}
    if severity:
        made["severity"] = severity
    if reason:
        made["reason"] = reason
    if message:
        made["message"] = message if len(message) <= MESSAGE_MAX else message[: MESSAGE_MAX - 1] + "…"
    return made


def ready(dependents: Iterable[Object]) -> Object:
    """The Ready condition: the first False, else the first Unknown, else True. Those with a severity do not count."""
    for status in (FALSE, UNKNOWN):
        for dependent in dependents:
            if dependent["status"] == status and not dependent.get("severity"):
                return condition("Ready", status, dependent.get("reason", ""), dependent.get("message", ""))
    return condition("Ready", TRUE)


def settle(old: Sequence[Object], new: Sequence[Object], now: str) -> list[Object]:
    """`new` ordered by type, with `lastTransitionTime` = `now` only where the status differs from `old`."""
    before = {item.get("type"): item for item in old if isinstance(item, dict)}
    settled = []
    for item in sorted(new, key=lambda c: str(c["type"])):
        was = before.get(item["type"])
        since = was.get("lastTransitionTime", now) if was is not None and was.get("status") == item["status"] else now
        settled.append({**item, "lastTransitionTime": since})
    return settled


def find(obj: Object, kind: str) -> Object:
    """The object's condition of that type; status Unknown when it has none yet."""
    status = obj.get("status")
    for item in (status.get("conditions") or ()) if isinstance(status, dict) else ():
        if item.get("type") == kind:
            return item  # type: ignore[no-any-return]
    return {"type": kind, "status": UNKNOWN}


def is_ready(obj: Object) -> bool:
    return bool(find(obj, "Ready")["status"] == TRUE)


def of_revision(facts: RevisionFacts, now: float) -> list[Object]:
    """Ready, ContainerHealthy, ResourcesAvailable and Active of a revision."""
    healthy, resources = _deployed(facts, now)
    return [ready((healthy, resources)), healthy, resources, _active(facts)]


def next_look_s(facts: RevisionFacts, now: float) -> float | None:
    """After how many seconds the passage of time alone changes the conditions."""
    if facts.was_ready or (facts.scale is not None and facts.scale.verified and not facts.leftover):
        return None
    waits = [facts.created_at + facts.deadline_s - now]
    if facts.scale is not None and facts.scale.unplaced:
        waits.append(facts.scale.at + UNPLACED_GRACE_S - now)
    return min((wait for wait in waits if wait > 0), default=None)


def _deployed(facts: RevisionFacts, now: float) -> tuple[Object, Object]:
    healthy, resources = "ContainerHealthy", "ResourcesAvailable"
    scale = facts.scale if not facts.leftover else None
    if (scale is not None and scale.verified) or (facts.was_ready and scale is None):
        short = (
            (scale.unplaced_as, scale.unplaced) if scale is not None and scale.unplaced else ()
        )  # It works, but may not grow.
        return condition(healthy, TRUE), condition(resources, TRUE, *short)
    if not facts.resolved and facts.resolution is not None and facts.resolution.reason:
        said = facts.resolution.message or f"the image {facts.image!r} could not be resolved to a digest"
        return condition(healthy, FALSE, facts.resolution.reason, said), condition(resources, UNKNOWN, "Deploying", said)
    if scale is not None and scale.failure is not None:
        reason, said = scale.failure.reason, failure_text(scale.failure)
        if reason in ("NoRoom", "NoRuntime", "QuotaExceeded"):
            return condition(healthy, UNKNOWN, "Deploying", said), condition(resources, FALSE, reason, said)
        return condition(healthy, FALSE, reason, said), condition(resources, TRUE)
    doing = _doing(facts)
    if now >= facts.created_at + facts.deadline_s:
        said = f"not Ready after {facts.deadline_s:g} s (serving.knative.dev/progress-deadline); last seen: {doing}"
        return condition(healthy, UNKNOWN, "Deploying", said), condition(resources, FALSE, "ProgressDeadlineExceeded", said)
    if scale is not None and scale.unplaced:
        status = FALSE if now >= scale.at + UNPLACED_GRACE_S else UNKNOWN
        return condition(healthy, UNKNOWN, "Deploying", doing), condition(resources, status, scale.unplaced_as, scale.unplaced)
    reason = "Deploying" if facts.resolved else "ResolvingDigests"
    return condition(healthy, UNKNOWN, reason, doing), condition(resources, UNKNOWN, reason, doing)


def _doing(facts: RevisionFacts) -> str:
    if facts.leftover:
        return "waiting until instances of an earlier revision of this name have ended"
    if not facts.resolved:
        return f"asking for the digest of image {facts.image!r}"
    if facts.nodes == 0:
        return "waiting for a node: no node agent is connected"
    if facts.progress and not any(i.phase in (Phase.STARTING, Phase.READY) for i in facts.instances):
        return facts.progress
    if not facts.instances:
        return "waiting for the first instance"
    order = list(_PHASE_WORDS)
    furthest = max(facts.instances, key=lambda i: order.index(i.phase))
    return f"instance {furthest.instance} on {furthest.node}: {_PHASE_WORDS[furthest.phase]}"


def failure_text(failure: Failure) -> str:
    """A failure in one message: what, how often, and the last lines the instance wrote."""
    said = failure.message
    if failure.count > 1:
        said += f" ({failure.count} starts failed in a row)"
    if failure.log_tail:
        tail = "\n".join(failure.log_tail[-10:])
        said += "; last log lines:\n" + tail[-700:]
    return said


def _active(facts: RevisionFacts) -> Object:
    """Whether the revision has instances that serve; never part of Ready."""
    serving = [i for i in facts.instances if i.phase in (Phase.READY, Phase.FROZEN)]
    if serving:
        return condition("Active", TRUE, severity="Info")
    scale = facts.scale
    if scale is not None and scale.failure is not None:
        return condition("Active", FALSE, scale.failure.reason, failure_text(scale.failure), "Info")
    if scale is None or (scale.desired > 0 and not scale.unplaced):
        return condition("Active", UNKNOWN, "Queued", "requests are held while an instance starts", "Info")
    if scale.unplaced:
        return condition("Active", FALSE, scale.unplaced_as, scale.unplaced, "Info")
    return condition("Active", FALSE, "NoTraffic", "the revision has no traffic and runs nothing", "Info")
