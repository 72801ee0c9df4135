"""Logs are read by a thread from files that somebody else writes; no container ever waits for it."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nodeagent.logfile import Line
from nodeagent.logs import Logs, Owner
from tests.eventually import eventually, eventually_async


@pytest.fixture
async def logs(tmp_path: Path) -> AsyncIterator[Logs]:
    made = Logs(tmp_path / "instances", rate_bytes=1000, burst_bytes=10_000)
    made.start()
    yield made
    await made.stop()


async def until_logged(logs: Logs, text: str) -> list[str]:
    """The lines of `i-1` as soon as one has `text` in it."""
    found: list[str] = []

    async def there() -> bool:
        found[:] = [line.text for line in await logs.history("i-1", tail=None, since=0)]
        return any(text in line for line in found)

    await eventually_async(there, f"{text!r} in the log")
    return found


def exists(path: str) -> bool:
    return Path(path).exists()


def blocks(path: str) -> int:
    """Bytes it takes on the disk."""
    return Path(path).stat().st_blocks * 512


def write(path: str, text: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)


async def test_lines_are_heard_live_and_kept(logs: Logs) -> None:
    heard: list[Line] = []
    end = logs.listen(lambda instance, lines: heard.extend(lines))
    stdout, stderr = logs.open("i-1", Owner("p", "s", "r"))
    write(stdout, "out\n")
    write(stderr, "err\n")
    await eventually(lambda: len(heard) == 2, "both lines heard")
    assert {(line.stream, line.text) for line in heard} == {("o", "out"), ("e", "err")}
    end()
    write(stdout, "unended")
    assert (await logs.tail("i-1", 1)) == ["unended"]
    await logs.close("i-1")
    assert [line.text for line in await logs.history("i-1", tail=None, since=0)][-1] == "unended"
    assert logs.owner("i-1") == Owner("p", "s", "r")
    assert not exists(stdout)


async def test_a_flood_is_dropped_and_counted_and_the_log_goes_on(logs: Logs) -> None:
    stdout, _ = logs.open("i-1", Owner())
    write(stdout, ("x" * 99 + "\n") * 10_000)
    lines = await until_logged(logs, "bytes dropped")
    assert 90 <= sum(line == "x" * 99 for line in lines) <= 110
    await eventually(lambda: blocks(stdout) <= 8192, "what was skipped takes no room")
    await asyncio.sleep(0.1)  # the rate grants a hundred bytes meanwhile
    write(stdout, "after\n")
    await until_logged(logs, "after")


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
