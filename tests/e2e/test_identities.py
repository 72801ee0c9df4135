"""Certificates between the processes are renewed while everything runs: a day of it in half a minute, under load."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from process.identity import Identity
from tests.e2e.engine import Engine

pytestmark = [pytest.mark.real, pytest.mark.timeout(170)]
LIFE_S = 9.0
ROLES = ("etcd", "nats", "gate", "registry", "autoscaler", "nodeagent", "ingress")


@pytest.fixture
def brief(tmp_path: Path) -> Iterator[Engine]:
    """An engine whose certificates last nine seconds."""
    made = Engine(tmp_path, "--identity-life-s", f"{LIFE_S:g}")
    try:
        made.up()
        yield made
    finally:
        made.down()
        made.close()


def serials(engine: Engine) -> dict[str, int]:
    return {role: Identity(engine.root / "identity" / role).certificate().serial_number for role in ROLES}


async def test_certificates_are_renewed_again_and_again_and_no_warm_request_fails(
    brief: Engine, images: dict[str, Path]
) -> None:
    engine = brief
    await asyncio.to_thread(engine.import_image, "test/testapp:v1", images["testapp"])
    await asyncio.to_thread(engine.deploy, "warm", "test/testapp:v1", annotations={"min-scale": "1"})
    await asyncio.to_thread(engine.wait_ready, "warm")
    before, pids, seen = serials(engine), engine.pids(), [serials(engine)]
    answers: dict[int, int] = {}
    end = time.monotonic() + 3 * LIFE_S
    async with aiohttp.ClientSession(headers={"Host": engine.host("warm")}) as client:
        while time.monotonic() < end:
            async with client.get(f"http://127.0.0.1:{engine.http_port}/") as answer:
                answers[answer.status] = answers.get(answer.status, 0) + 1
            if serials(engine)["nats"] != seen[-1]["nats"]:
                seen.append(serials(engine))
    assert set(answers) == {200}, answers
    assert answers[200] > 100
    # Every certificate of the beginning has ended by now, and each process has been given others at least three times.
    assert len(seen) >= 4
    assert all(number != before[role] for role, number in serials(engine).items())
    assert engine.pids() == pids, "nothing was started anew"
    # What was connected all the time still hears and is heard: from the API to an instance and back.
    await asyncio.to_thread(engine.deploy, "late", "test/testapp:v1")
    await asyncio.to_thread(engine.wait_ready, "late")
    assert (await asyncio.to_thread(engine.get, "late")).status_code == 200
    for name in ("registry", "autoscaler", "nodeagent", "ingress"):
        log = (engine.root / "logs" / f"{name}.log").read_text()
        assert log.count('"bus connected"') == 1, f"{name}: a renewal is no reason to connect to NATS anew"
    assert '"refused"' not in (engine.root / "logs" / "gate.log").read_text()
