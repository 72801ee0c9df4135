"""Logs are read by a thread from files that somebody else writes; no container ever waits for it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from nodeagent.logfile import Line
from nodeagent.logs import Logs, Owner


async def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, f"not within 10 s: {what}"
        await asyncio.sleep(0.005)


@pytest.fixture
async def logs(tmp_path: Path) -> AsyncIterator[Logs]:
    made = Logs(tmp_path / "instances", rate_bytes=1000, burst_bytes=10_000)
    made.start()
    yield made
    await made.stop()


def write(path: str, text: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)


async def test_lines_are_heard_live_and_kept(logs: Logs) -> None:
    heard: list[Line] = []
    end = logs.listen(lambda instance, lines: heard.extend(lines))
    stdout, stderr = logs.open("i-1", Owner("p", "s", "r"))
    write(stdout, "out\n")
    write(stderr, "err\n")
    await until(lambda: len(heard) == 2, "both lines heard")
    assert {(line.stream, line.text) for line in heard} == {("o", "out"), ("e", "err")}
    end()
    write(stdout, "unended")
    assert (await logs.tail("i-1", 1)) == ["unended"]
    await logs.close("i-1")
    assert [line.text for line in await logs.history("i-1", tail=None, since=0)][-1] == "unended"
    assert logs.owner("i-1") == Owner("p", "s", "r")
    assert not Path(stdout).exists()


async def test_a_flood_is_dropped_and_counted_and_the_log_goes_on(logs: Logs) -> None:
    stdout, _ = logs.open("i-1", Owner())
    write(stdout, ("x" * 99 + "\n") * 10_000)
    async with asyncio.timeout(10):
        while not any("bytes dropped" in line.text for line in await logs.history("i-1", tail=None, since=0)):
            await asyncio.sleep(0.01)
    lines = [line.text for line in await logs.history("i-1", tail=None, since=0)]
    assert 90 <= sum(line == "x" * 99 for line in lines) <= 110
    assert Path(stdout).stat().st_blocks * 512 <= 8192, "what was skipped takes no room"
    await asyncio.sleep(0.1)
    write(stdout, "after\n")
    async with asyncio.timeout(10):
        while (await logs.tail("i-1", 1)) != ["after"]:
            await asyncio.sleep(0.01)


async def test_logs_of_what_is_gone_are_deleted_in_time(logs: Logs) -> None:
    for name in ("old", "lives"):
        stdout, _ = logs.open(name, Owner())
        write(stdout, "line\n")
        await logs.tail(name, 1)
    await logs.close("old")
    await logs.prune({"lives"}, older_than=time.time() - 60, most=10)
    assert logs.instances() == ["lives", "old"]
    await logs.prune({"lives"}, older_than=time.time() + 60, most=10)
    assert logs.instances() == ["lives"]
