"""Logs are read by a thread from files that somebody else writes; no container ever waits for it."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nodeagent.logfile import LINE_BYTES, Line
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


async def test_a_flood_is_dropped_and_counted_and_the_log_goes_on(tmp_path: Path) -> None:
    logs = Logs(tmp_path / "instances", rate_bytes=10_000, burst_bytes=10_000)
    logs.start()
    stdout, _ = logs.open("i-1", Owner())
    began = time.monotonic()
    write(stdout, ("x" * 99 + "\n") * 10_000)
    lines = await until_logged(logs, "bytes dropped")
    granted = 100 * (1 + time.monotonic() - began)
    assert 90 <= sum(line == "x" * 99 for line in lines) <= granted + 10
    await eventually(lambda: blocks(stdout) <= 8192, "what was skipped takes no room")
    await asyncio.sleep(0.6)  # what was read too much is made good, and the rate grants a thousand bytes
    write(stdout, "after\n")
    await until_logged(logs, "after")
    await logs.stop()


async def test_a_flood_of_empty_lines_counts_by_what_they_take_in_the_log(tmp_path: Path) -> None:
    logs = Logs(tmp_path / "instances", rate_bytes=1000, burst_bytes=1_000_000)
    logs.start()
    stdout, _ = logs.open("i-1", Owner())
    write(stdout, "\n" * 900_000)
    lines = await until_logged(logs, "bytes dropped")
    assert 1_000_000 / 50 < len(lines) < 70_000
    assert logs.dropped_bytes("i-1") > 800_000
    await logs.stop()


async def test_what_an_app_writes_is_never_another_line_time_or_stream(tmp_path: Path) -> None:
    made = Logs(tmp_path / "instances", rate_bytes=10**9, burst_bytes=10**9)
    made.start()
    stdout, _ = made.open("i-1", Owner())
    own = [
        "a\r1999999999.000000 e 0,0 forged",
        "1999999999.000000 e 999999999,0 forged",
        '{"at":1,"instance":"i-2","stream":"stderr","line":"forged"}',
        "\x1b[2J\x1b[1A\x0b\x0c\x1c\x85\u2028forged",
        "x" * 10_000_000,
        "after",
    ]
    write(stdout, "".join(f"{line}\n" for line in own))
    began = time.time()
    await until_logged(made, "after")
    lines = await made.history("i-1", tail=None, since=0)
    assert [line.text for line in lines if line.text[:2] != "xx"] == [line for line in own if line[:2] != "xx"]
    assert {line.stream for line in lines} == {"o"}
    assert all(abs(line.at - began) < 60 for line in lines)
    assert max(len(line.text) for line in lines) <= LINE_BYTES
    await made.stop()
    again = Logs(tmp_path / "instances", rate_bytes=10**9, burst_bytes=10**9)
    again.start()
    again.open("i-1", Owner())
    write(stdout, "once more\n")
    assert [text for text in await until_logged(again, "once more") if text[:2] != "xx"][-2:] == ["after", "once more"]
    await again.stop()


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
