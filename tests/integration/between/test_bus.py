"""Nobody speaks or listens for another on the bus: every role has a client of its own, at a real NATS that holds to store/roles.py."""

from collections.abc import AsyncIterator

import pytest

from process.identity import Who
from store.bus import Bus
from store.connect import open_bus
from store.messages import drained, instance
from store.roles import subjects
from tests import real
from tests.eventually import eventually, eventually_async

pytestmark = pytest.mark.real


@pytest.fixture
async def buses(secure: real.Secure) -> AsyncIterator[dict[str, Bus]]:
    """One client each, of a NATS where store/roles.py holds."""
    known = [
        Who("nodeagent", "node-1"),
        Who("nodeagent", "node-2"),
        Who("ingress", "a"),
        Who("autoscaler", "a"),
        Who("registry", "a"),
    ]
    async with real.secure_nats(secure.cluster, *known) as server:
        made = {}
        for who in known:
            made[who.name if who.role == "nodeagent" else who.role] = await open_bus(
                server.url, who.uri, secure.identity(who.role, who.name)
            )
        made["cli"] = await open_bus(server.url, "cli", secure.identity("cli"))
        made["plain"] = await open_bus(server.url, "plain")
        yield made
        for bus in made.values():
            await bus.close()


async def heard(bus: Bus, subject: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    await bus.handle(subject, lambda where, data: found.append((where, data)))
    return found


async def test_the_bus_is_shut_to_who_has_no_certificate_or_no_business_there(buses: dict[str, Bus]) -> None:
    assert {name for name, bus in buses.items() if not bus.connected} == {"cli", "plain"}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("speaker", "forged", "allowed", "hearer"),
    [
        ("node-1", instance("node-2"), instance("node-1"), "ingress"),
        ("node-1", "ebb.refusal", instance("node-1"), "ingress"),
        ("ingress", instance("node-1"), "ebb.wake", "autoscaler"),
        ("ingress", "ebb.refusal", "ebb.wake", "autoscaler"),
        ("autoscaler", drained("node-1"), "ebb.story", "registry"),
        ("node-1", "ebb.usage.node-2", "ebb.usage.node-1", "autoscaler"),
        ("node-1", "ebb.samples", "ebb.usage.node-1", "autoscaler"),
        ("node-1", "ebb.wake", "ebb.usage.node-1", "autoscaler"),
        ("ingress", "ebb.usage.node-1", "ebb.samples", "autoscaler"),
        ("ingress", "ebb.identity.node-1", "ebb.story", "registry"),
        ("node-1", "ebb.identity.node-2", "ebb.story", "registry"),
        ("node-1", "ebb.image.progress.node-2", "ebb.image.progress.node-1", "registry"),
    ],
)
async def test_on_the_bus_nobody_speaks_for_another(
    speaker: str, forged: str, allowed: str, hearer: str, buses: dict[str, Bus]
) -> None:
    # Only what the hearer may hear could reach it: each subject of its role by itself.
    _, hears = subjects(hearer, "a")
    found = [await heard(buses[hearer], each) for each in hears]
    buses[speaker].publish(forged, b"forged")
    buses[speaker].publish(allowed, b"true")

    async def came() -> bool:
        return any((allowed, b"true") in each for each in found)

    await eventually_async(came)
    assert not any(data == b"forged" for each in found for _, data in each)


async def test_answers_are_heard_by_who_asked_alone(buses: dict[str, Bus]) -> None:
    overheard = await heard(buses["node-2"], "_INBOX.>")

    async def answer(data: bytes) -> bytes:
        return b"for your ears"

    await buses["node-1"].respond("ebb.image.resolve", answer)
    assert await buses["registry"].request("ebb.image.resolve", b"", timeout_s=5) == b"for your ears"
    last = await heard(buses["node-2"], drained("node-2"))
    buses["ingress"].publish(drained("node-2"), b"last")
    await eventually(lambda: last)
    assert overheard == []
