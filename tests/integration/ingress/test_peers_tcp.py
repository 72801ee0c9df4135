"""Workers of one front door on several machines: they share slots over TCP, through cuts of the network and the death of one."""

import asyncio
import itertools
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from activator import peers
from activator.peers import SILENT_S, Peers
from store import keys
from tests.certificates import World
from tests.eventually import eventually
from tests.integration.ingress.door import REVISION, Door, instance, open_door
from tests.integration.ingress.test_workers import Counting, known

ANYWHERE = "127.0.0.1:0"


@pytest.fixture
async def doors(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Door, Door]]:
    """Two, each of which believes to be on a machine of its own."""
    names = itertools.count(1)
    monkeypatch.setattr(peers, "machine", lambda: f"machine-{next(names)}")
    async with open_door(peers=ANYWHERE) as one:
        two = Door(beside=one, peers=ANYWHERE)
        await two.start()
        try:
            await eventually(lambda: agree(one, two), "they agree")
            yield one, two
        finally:
            await two.ingress.drain(0.5)


def agree(one: Door, two: Door) -> bool:
    return all(each.ingress.admitter.loans.ownership.agreed and len(known(each)) == 2 for each in (one, two))


def between(door: Door) -> Peers:
    assert door.ingress._peers is not None
    return door.ingress._peers


def speakers(door: Door) -> list[Any]:
    return list(between(door)._speakers.values())


def owner(one: Door, two: Door) -> tuple[Door, Door]:
    """(who owns the revision, the other)"""
    name = one.ingress.admitter.loans.ownership.owner(REVISION)
    return (one, two) if name == one.ingress.worker else (two, one)


async def test_the_limit_holds_and_all_are_served_while_the_network_between_them_is_cut_again_and_again(
    doors: tuple[Door, Door],
) -> None:
    one, two = doors
    app = Counting(0.005)
    async with instance(app) as port:
        await one.route(container_concurrency=2)
        await one.ready("i1", port)
        waiting = [asyncio.create_task(door.get()) for _ in range(100) for door in doors]
        for _ in range(5):
            served = app.served
            await eventually(lambda served=served: app.served > served + 5, "some are served")
            for speaker in speakers(one):
                speaker._transport.abort()
            await eventually(lambda: speakers(one) and speakers(two), "they speak again")
        answers = await asyncio.gather(*waiting)
    assert {answer[:12] for answer in answers} == {b"HTTP/1.1 200"}
    assert (app.most, app.served) == (2, 200)


async def test_a_worker_of_another_machine_is_believed_dead_when_its_connection_and_its_key_are_gone_not_before(
    doors: tuple[Door, Door],
) -> None:
    app = Counting(0)
    async with instance(app) as port:
        await doors[0].route(container_concurrency=1)
        await doors[0].ready("i1", port)
        dies, stays = owner(*doors)
        assert (await stays.get())[:12] == b"HTTP/1.1 200"
        await dies.get()  # Who owns has its slot back from now on.
        peer = between(dies)
        peer.close()
        await eventually(lambda: not speakers(stays), "the connection is gone")
        waits = asyncio.create_task(stays.get())
        await asyncio.sleep(0.3)
        assert not waits.done(), "perhaps only the network is away"
        await stays.store.delete(keys.member("ingress", dies.ingress.member))
        assert (await asyncio.wait_for(waits, 5))[:12] == b"HTTP/1.1 200"
        assert len(known(stays)) == 1


async def test_the_kernel_ends_a_connection_to_a_machine_that_fell_silent(doors: tuple[Door, Door]) -> None:
    for door in doors:
        ends = [*speakers(door), *between(door)._listeners]
        assert len(ends) == 2
        for end in ends:
            sock = end._transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == SILENT_S * 1000


def test_an_address_that_others_cannot_reach_is_refused() -> None:
    door = Door(peers="0.0.0.0:0")
    made = Peers(door.ingress.admitter.loans, door.ingress._clock, "0.0.0.0:0", lambda: None, lambda: None)
    with pytest.raises(OSError, match="must be one of this machine's own"):
        made.listen()


class Cluster:
    """Certificates that both ends show; `strangers`: who dials is not admitted."""

    server_name = "ingress.localhost"

    def __init__(self, world: World, *, strangers: bool = False) -> None:
        pair = world.authority.issue((self.server_name,), time.time())
        self._ca, self._own = world.ca, world.ca.with_name("own.pem")
        self._own.write_bytes(pair.chain.encode() + pair.key)
        self._strangers = strangers

    def client(self) -> ssl.SSLContext:
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def server(self) -> ssl.SSLContext:
        return self._context(ssl.PROTOCOL_TLS_SERVER)

    def admits(self, transport: Any) -> bool:
        return bool(transport.get_extra_info("ssl_object")) and not self._strangers

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.load_verify_locations(self._ca)
        context.load_cert_chain(self._own)
        return context


async def test_over_tls_they_share_slots_and_who_is_not_admitted_is_no_worker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = itertools.count(1)
    monkeypatch.setattr(peers, "machine", lambda: f"machine-{next(names)}")
    world, app = World(tmp_path), Counting(0.002)
    async with open_door(peers=ANYWHERE, secure=Cluster(world)) as one, instance(app) as port:
        two = Door(beside=one, peers=ANYWHERE, secure=Cluster(world))
        await two.start()
        try:
            await eventually(lambda: agree(one, two), "they agree")
            await one.route(container_concurrency=1)
            await one.ready("i1", port)
            answers = await asyncio.gather(*(door.get() for _ in range(20) for door in (one, two)))
            assert {answer[:12] for answer in answers} == {b"HTTP/1.1 200"}
            assert app.most == 1
            between(one).secure = Cluster(world, strangers=True)
            for speaker in speakers(two):
                speaker._transport.abort()
            await eventually(lambda: not between(one)._listeners, "nobody is listened to")
        finally:
            await two.ingress.drain(0.5)
