"""`python -m autoscaler`: one autoscaler; of several one leads and the others stand by with warm tables."""

import asyncio
import gc
from typing import Literal

import msgspec
from aiohttp import web

from autoscaler.active import Made
from autoscaler.loop import Scaler
from autoscaler.mind import Limits
from autoscaler.succession import bury, identity
from process.admin import Admin
from process.clock import SystemClock
from process.run import Jobs, main
from process.settings import Common
from store.backend import Store
from store.connect import identity_of, open_bus, open_store
from store.election import lead
from store.story import Story


class Settings(Common, frozen=True, kw_only=True):
    """Flags of the autoscaler, beside the common ones. Durations are seconds."""

    member: str = ""
    """Name among several autoscalers; by default one that tells the others on this machine whether it is still alive."""
    tick_s: float = 2
    stable_window_s: float = 60
    scale_to_zero_grace_s: float = 0
    park: bool = True
    policy: Literal["service", "learned", "frugal", "knative"] = "service"
    """Who follows learned habits: services that ask for it, all but those that say knative, or none."""
    node_gone_s: float = 10
    election_ttl_s: float = 3


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run until `stop`."""
    own = identity_of(settings)
    store = await open_store(settings.etcd, own)
    bus = await open_bus(settings.nats, "autoscaler", own)
    clock, jobs = SystemClock(), Jobs("autoscaler", stop)
    limits = Limits(
        tick_s=settings.tick_s,
        stable_window_s=settings.stable_window_s,
        scale_to_zero_grace_s=settings.scale_to_zero_grace_s,
        park=settings.park,
        policy=settings.policy,
        node_gone_s=settings.node_gone_s,
    )
    scaler = Scaler(store, bus, clock, Story(bus, "autoscaler", clock), limits, jobs)
    admin = Admin({"store": scaler.problem}, [("GET", "/decisions", lambda request: decisions(scaler, request))])
    await admin.start(settings.admin)
    member = settings.member or identity()
    try:
        jobs.start(start_and_lead(scaler, store, member, settings.election_ttl_s), "lead", fatal=True)
        await stop.wait()
    finally:
        await jobs.cancel()
        await admin.stop()
        await bus.close()
        await store.close()


async def start_and_lead(scaler: Scaler, store: Store, member: str, ttl_s: float) -> None:
    """Fill the tables, then campaign for ever."""
    await scaler.start()
    gc.freeze()  # What the tables hold lives long: no collection during a wake shall walk it.
    await bury(store, "autoscaler")
    await lead(store, "autoscaler", member, ttl_s, scaler.lead)


async def decisions(scaler: Scaler, request: web.Request) -> web.Response:
    """GET /decisions?revision=project/name: the last decisions with their steps, oldest first."""
    revision = request.query.get("revision", "")
    if not revision:
        return web.Response(status=400, text='say which: ?revision=<project>/<revision>, as in "default/hello-00001"\n')
    body = msgspec.json.encode(
        {
            "revision": revision,
            "leading": scaler.mind.leading,
            "decisions": [as_shown(m) for m in scaler.mind.history.of(revision)],
        }
    )
    return web.Response(body=body, content_type="application/json")


def as_shown(made: Made) -> dict[str, object]:
    """A decision as the admin endpoint shows it."""
    return {
        "at": made.at,
        "desired": made.decision.desired,
        "reason": made.decision.reason,
        "ready": made.ready,
        "starting": made.starting,
        "cause_id": made.cause_id,
        "outcome": made.outcome,
        "steps": [{"rule": s.rule, "value": s.value, "why": s.why} for s in made.decision.steps],
    }


if __name__ == "__main__":
    main("autoscaler", Settings, serve)
