"""`python -m registry`: the API, and, in one of several replicas, the controller."""

import asyncio
from pathlib import Path
from typing import Any

from litestar.types import ASGIApp

from process import ids, logs
from process.admin import Admin
from process.clock import SystemClock
from process.run import Jobs, main
from process.settings import BadSettings
from registry import orders, server
from registry.api import certificates, ebb, identity_routes, images, routes, value_routes, why
from registry.api.resources import Resources
from registry.api.streams import Streams
from registry.api.values import ValueStore
from registry.api.watching import Watches
from registry.authority import Authority, NoAuthority
from registry.bounds import LOCAL_DOMAIN, Bounds, Naming
from registry.digests import Digests
from registry.front import Front
from registry.identities import Identities
from registry.issuer import Issuer, Sources
from registry.loop import Controller
from registry.nodes import NodeAgents
from registry.observed import Observed, Unit
from registry.servingtls import ServingTls
from registry.settings import Settings
from registry.spool import Spool
from registry.story import StoryBook
from registry.top import Samples
from store import keys
from store.backend import Store
from store.bus import Bus
from store.connect import identity_of, open_both
from store.election import lead
from store.lease import Presence
from store.messages import IMAGE_PROGRESSES, SAMPLES, STORY, PullProgress, SampleReport, StoryEvents, said_by
from store.model import Member, decode, encode
from store.seal import Keyring
from store.story import Story
from store.txn import Guard
from store.watch import Table

MEMBER_TTL_S = 10.0
log = logs.get("registry")


async def _listen(bus: Bus, book: StoryBook, samples: Samples, controller: Controller, clock: SystemClock) -> None:
    """What is said on the bus: the story, samples for `ebb top`, pulls."""

    def story(_: str, data: bytes) -> None:
        for event in decode(StoryEvents, data).events:
            book.add(event)

    def sample(_: str, data: bytes) -> None:
        samples.add(decode(SampleReport, data), clock.now())

    def pull(subject: str, data: bytes) -> None:
        progress = decode(PullProgress, data)
        if said_by(progress.node, subject):
            controller.pulling(progress)

    await bus.handle(STORY, story)
    await bus.handle(SAMPLES, sample)
    await bus.handle(IMAGE_PROGRESSES, pull)


def _issuer(settings: Settings, store: Store, clock: SystemClock, ring: Keyring | None, observed: Observed) -> Issuer | None:
    """None where there is no TLS. Raises BadSettings."""
    if not settings.certificate_key_file:
        return None
    try:
        authority = Authority(Path(settings.local_ca), Path(settings.local_ca_key)) if settings.local_ca else None
    except NoAuthority as error:
        raise BadSettings(f"--local-ca, --local-ca-key: {error}") from None
    seal, ordering = Keyring(Path(settings.certificate_key_file)), None
    if settings.acme_directory:
        acme = orders.Authority(settings.acme_directory, settings.acme_email, settings.acme_ca_file)
        ordering = orders.Orders(store, clock, seal, acme)
    sources = Sources(seal, ring, authority, settings.domain, ordering, observed.served)
    return Issuer(store, clock, sources, observed.synced)


def _tables(*owners: Observed | Issuer | Identities | None) -> dict[str, Table[Any]]:
    return {name: table for owner in owners if owner is not None for name, table in owner.tables().items()}


def _bounds(settings: Settings) -> Bounds:
    own = (settings.domain, LOCAL_DOMAIN)
    acme = bool(settings.acme_directory and settings.certificate_key_file)
    return Bounds(timeout_max_s=settings.timeout_max_s, own_domains=own, tag_header=settings.tag_header, acme=acme)


def _naming(settings: Settings) -> Naming:
    return Naming(settings.domain, settings.url_port, settings.url_scheme, settings.https_port)


def _spool(settings: Settings) -> Spool:
    spool = Spool(Path(settings.data), settings.upload_max_bytes)
    spool.open()
    return spool


def _signed(settings: Settings, store: Store, clock: SystemClock) -> Identities | None:
    return Identities(store, clock, Keyring(Path(settings.identity_key_file))) if settings.identity_key_file else None


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run until `stop`."""
    clock, member = SystemClock(), settings.member or f"registry-{ids.short_id(6)}"
    bounds, spool = _bounds(settings), _spool(settings)
    store, bus = await open_both(settings, member)
    jobs, book, samples, streams = Jobs("registry", stop), StoryBook(), Samples(), Streams()
    front = Front(settings, store, clock, streams)
    controller = Controller(store, _naming(settings), bounds, clock, Story(bus, "registry", clock))
    issuer: Issuer | None = None

    def dirty(unit: Unit) -> None:
        controller.mark(unit)
        if issuer is not None:
            issuer.mark(unit[0])

    observed = Observed(store, dirty, controller.mark_counted, controller.echo, front.counts)
    ring = Keyring(Path(settings.secret_key_file)) if settings.secret_key_file else None
    values = ValueStore(store, clock, ring, front.counts)
    digests = Digests(bus, clock, jobs, controller.mark_revision, values.stored_secrets, front.policy)
    controller.wire(observed, digests)
    await _listen(bus, book, samples, controller, clock)
    agents = NodeAgents(observed.live_nodes, identity_of(settings))
    knative = routes.KnativeRoutes(Resources(store, bounds, clock, front.counts), Watches(store, streams), clock)
    issuer = _issuer(settings, store, clock, ring, observed)
    signed = _signed(settings, store, clock)
    every = [
        *routes.handlers(knative),
        *value_routes.handlers(value_routes.ValueRoutes(values, Watches(store, streams), clock)),
        *ebb.handlers(ebb.EbbRoutes(observed, agents, book, samples, streams, clock)),
        *images.handlers(images.ImageRoutes(agents, spool, bus, streams, observed.images_of)),
        *why.handlers(why.WhyRoutes(observed, bus)),
        *certificates.handlers(issuer.certificates if issuer is not None else None),
        *identity_routes.handlers(signed),
    ]
    application = front.application(every, observed.projects, bounds)
    tables = _tables(observed, issuer, signed) | front.tables()
    for name, table in tables.items():
        jobs.start(table.run(), f"watch {name}", fatal=True)
    await front.begin(jobs)
    presence = Presence(store, MEMBER_TTL_S)
    admin = Admin({name: table.problem for name, table in tables.items()})
    await admin.start(settings.admin)

    async def leading(guard: Guard) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(controller.lead(guard))
            for each in (issuer, signed):
                if each is not None:
                    group.create_task(each.lead(guard))

    jobs.start(lead(store, "registry", member, settings.lead_ttl_s, leading), "controller", fatal=True)

    async def join() -> None:
        await presence.start()
        said = Member(role="registry", member=member, address=settings.listen, admin=f"127.0.0.1:{admin.port}")
        await presence.put(keys.member("registry", member), encode(said))

    jobs.start(join(), "presence")
    if signed is not None:
        await signed.answer_nodes(bus)
    try:
        await _serve_until(stop, application, front.tls(), settings.listen, streams)
    finally:
        await jobs.cancel()
        await presence.stop()
        await front.close()
        await agents.close()
        await admin.stop()
        await bus.close()
        await store.close()


async def _serve_until(
    stop: asyncio.Event, application: ASGIApp, tls: ServingTls | None, listen: str, streams: Streams
) -> None:
    """The API, until it fails or `stop` is set; open streams end first."""
    ending = asyncio.Event()
    serving, waiting = asyncio.create_task(server.serve(application, listen, ending, tls)), asyncio.create_task(stop.wait())
    await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    log.info("draining", streams=streams.open)
    waiting.cancel()
    streams.stop()
    ending.set()
    await serving


if __name__ == "__main__":
    main("registry", Settings, serve)
