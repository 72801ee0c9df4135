"""Ports of raw TCP services: open while a route names them, told when they cannot be, shared by workers and by nobody else."""

import socket

import pytest

from store import keys
from store.model import Member, decode
from tests.eventually import eventually, eventually_async
from tests.integration.ingress.door import Door, open_door
from tests.integration.ingress.tcp_door import connect, echo, serving


async def test_a_port_is_open_for_as_long_as_a_route_names_it() -> None:
    async with serving(echo) as (door, port):
        reader, writer = await connect(port)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        await door.route_port(port, "other", {"r2": 100})
        await door.store.delete(keys.route("default", "db"))
        await eventually(lambda: (split := door.ingress.gate.routes.ports.get(port)) and split.only.revision == "default/r2")
        assert port in door.ingress.ports.open, "the one that waited has taken over"
        await door.store.delete(keys.route("default", "other"))
        await eventually(lambda: port not in door.ingress.ports.open, "the port is closed")
        writer.write(b"still here")
        assert await reader.readexactly(10) == b"still here"
        with pytest.raises(ConnectionRefusedError):
            await connect(port)
        writer.close()


async def test_a_port_that_cannot_be_listened_on_is_told_and_opened_when_it_can() -> None:
    async def told(*down: int) -> dict[int, str] | None:
        entry = await door.store.get(keys.member("ingress", "door"))
        said = decode(Member, entry.value).ports if entry is not None else {}
        return said if {port for port, why in said.items() if why} == set(down) else None

    async with open_door() as door:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            await door.route_port(port)
            await door.route_port(door.port, "own")
            await eventually_async(lambda: told(port, door.port), "both are told")
            why = await told(port, door.port)
            assert why is not None
            assert "in use" in why[port]
            assert "front door itself" in why[door.port]
        await eventually_async(lambda: told(door.port), "it is open now")
        assert (await told(door.port) or {})[port] == ""
        (await connect(port))[1].close()


async def test_two_front_doors_of_one_machine_never_share_a_port_and_the_second_says_so() -> None:
    """Not even where the kernel would let them: half of the first one's connections would come to the second."""

    async def said() -> str:
        entry = await second.store.get(keys.member("ingress", "door"))
        return decode(Member, entry.value).ports.get(port, "") if entry is not None else ""

    async with serving(echo) as (first, port), open_door() as second:
        await second.route_port(port, "theirs")
        await eventually_async(said, "the second says that it cannot")
        assert "in use by another program" in await said()
        assert port not in second.ingress.ports.open
        await first.store.delete(keys.route("default", "db"))
        await eventually(lambda: port in second.ingress.ports.open, "it has the port when the first lets go")


async def test_a_port_is_shared_by_the_workers_of_one_front_door() -> None:
    async with serving(echo) as (one, port):
        two = Door(beside=one)
        await two.start()
        try:
            await eventually(lambda: port in two.ingress.ports.open, "the second worker listens too")
            assert not two.ingress.ports.down
            for _ in range(20):
                reader, writer = await connect(port)
                writer.write(b"x")
                assert await reader.readexactly(1) == b"x"
                writer.close()
        finally:
            await two.ingress.drain(0.5)
