"""What `deploy/demo` shows once everything is installed: from zero, burst, split, back to zero, with times."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from deploy import statefile
from deploy.settings import Engine

HERE = Path(__file__).parent
EBB = [sys.executable, "-P", "-m", "cli"]
NAME = "hello"
PHASES_AWAKE = ("Pending", "Pulling", "Starting", "Ready", "Draining")
ZERO_TIMEOUT_S = 90.0


class Stopped(Exception):
    """The demo cannot go on; the message says why and where to look."""


def say(text: str) -> None:
    sys.stdout.write(f"    {text}\n")
    sys.stdout.flush()


def head(text: str) -> None:
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    sys.stdout.write(f"\n{bold}==> {text}{plain}\n")
    sys.stdout.flush()


def ebb(*words: str, show: bool = True) -> None:
    """Run an `ebb` command as a person would. Raises Stopped when it fails."""
    if show:
        say("$ ebb " + " ".join(words))
    if subprocess.run([*EBB, *words], check=False).returncode:
        raise Stopped(f"`ebb {' '.join(words)}` failed (see above); `ebb status` shows how the engine is")


def ask(*words: str) -> Any:
    """An `ebb … -o json` command's answer."""
    done = subprocess.run([*EBB, *words, "-o", "json"], check=False, capture_output=True, text=True)
    if done.returncode:
        raise Stopped(f"`ebb {' '.join(words)}` failed: {done.stderr.strip()}")
    return json.loads(done.stdout)


class Front:
    """The ingress, called as a browser would call the service."""

    def __init__(self, engine: Engine, session: aiohttp.ClientSession) -> None:
        host = engine.http.rpartition(":")[0]
        self._base = f"http://{'127.0.0.1' if host in ('0.0.0.0', '') else host}:{engine.http_port}"
        self._headers = {"Host": f"{NAME}.default.{engine.domain}"}
        self._session = session
        self.cause = ""
        """Of the last answer: what its wake is called in the story; empty when nothing had to be woken."""

    async def get(self, ms: int = 0) -> str:
        """The answer's text. Raises Stopped for anything but 200."""
        async with self._session.get(f"{self._base}/?ms={ms}", headers=self._headers) as answer:
            text = (await answer.text()).strip()
            if answer.status != 200:
                raise Stopped(f"the request was answered {answer.status}: {text}; see: ebb logs {NAME}, ebb services {NAME}")
            self.cause = answer.headers.get("x-ebb-cause", "")
            return text


def start(flags: list[str]) -> Engine:
    """The running engine, started if need be."""
    run = flags[flags.index("--run") + 1] if "--run" in flags else Engine().run
    os.environ["EBB_RUN"] = run
    before = statefile.read(Path(run) / "state.json")
    healthy = subprocess.run([*EBB, "status", "--run", run], check=False, capture_output=True).returncode == 0
    if before is not None and healthy:
        say("already running")
    else:
        ebb("up", "-d", *flags)
    state = statefile.read(Path(run) / "state.json")
    if state is None:
        raise Stopped(f"`ebb up` left no {run}/state.json")
    return state.engine


def build_and_deploy() -> str:
    """The name of the revision that then runs."""
    archive = str(HERE.parent / "build" / "hello.tar")
    say("$ deploy/examples/build")
    subprocess.run([str(HERE / "examples" / "build"), archive], check=True, stdout=subprocess.DEVNULL)
    scale = ["--concurrency", "10", "--max-scale", "12", "--annotation", "autoscaling.knative.dev/window=6s"]
    ebb("deploy", NAME, "--archive", archive, "--env", "GREETING=Hello", *scale)
    ebb("traffic", NAME, "--to-latest", show=False)
    return str(ask("services", NAME)["status"]["latestReadyRevisionName"])


async def wait_for_zero() -> float:
    """Seconds until no instance runs app code, with the phases shown as they change."""
    began, shown = time.monotonic(), ""
    while True:
        found = await asyncio.to_thread(ask, "instances", "--service", NAME)
        counts = Counter(item["phase"] for item in found)
        now = ", ".join(f"{count} {phase}" for phase, count in sorted(counts.items())) or "none"
        if now != shown:
            say(f"{time.monotonic() - began:5.1f} s  instances: {now}")
            shown = now
        if not any(counts[phase] for phase in PHASES_AWAKE):
            return time.monotonic() - began
        if time.monotonic() - began > ZERO_TIMEOUT_S:
            raise Stopped(f"{NAME} is not at zero after {ZERO_TIMEOUT_S:g} s ({now}); see: ebb revisions; ebb instances")
        await asyncio.sleep(0.3)


async def from_zero(front: Front) -> None:
    say(f"waiting until {NAME} has gone to zero (its window is 6 s; the default is 60 s)")
    await wait_for_zero()
    began = time.perf_counter()
    text = await front.get()
    cold_ms = (time.perf_counter() - began) * 1000
    cause, warm = front.cause, []
    for _ in range(20):
        began = time.perf_counter()
        await front.get()
        warm.append((time.perf_counter() - began) * 1000)
    say(text)
    say(f"from zero: {cold_ms:.0f} ms to the answer; then, awake: {sorted(warm)[10]:.1f} ms (median of 20)")
    if cause:
        await asyncio.sleep(1)  # the last steps of the story are still on their way
        await asyncio.to_thread(ebb, "story", cause)


async def burst(front: Front, requests: int = 120, ms: int = 500) -> None:
    say(f"{requests} requests at once, {ms} ms each, at most 10 at a time in one instance")
    began = time.monotonic()
    tasks = [asyncio.create_task(front.get(ms)) for _ in range(requests)]
    while not all(task.done() for task in tasks):
        await asyncio.wait(tasks, timeout=0.5, return_when=asyncio.ALL_COMPLETED)
        done = sum(1 for task in tasks if task.done())
        say(f"{time.monotonic() - began:5.1f} s  {done} of {requests} answered")
    answers = await asyncio.gather(*tasks)
    by_instance = Counter(text.rpartition("instance ")[2] for text in answers)
    say(f"all answered after {time.monotonic() - began:.1f} s, none refused, by {len(by_instance)} instances:")
    for name, count in by_instance.most_common():
        say(f"   {name:<32} {count:>4}")


async def split(front: Front, first: str, requests: int = 200) -> None:
    ebb("deploy", NAME, "--env", "GREETING=Hola", "--no-traffic")
    second = ask("services", NAME)["status"]["latestCreatedRevisionName"]
    ebb("traffic", NAME, "--to", f"{first}=50", "--to", f"{second}=50", "--tag", f"next={second}")
    began = time.monotonic()
    room = asyncio.Semaphore(10)

    async def one() -> str:
        async with room:
            return await front.get()

    answers = await asyncio.gather(*(one() for _ in range(requests)))
    counts = Counter(text.partition("revision ")[2].partition(",")[0] for text in answers)
    shares = ", ".join(f"{name} {count} ({100 * count / requests:.0f}%)" for name, count in sorted(counts.items()))
    say(f"{requests} requests in {time.monotonic() - began:.1f} s: {shares}")


async def show(flags: list[str]) -> None:
    """The whole demo."""
    whole = time.monotonic()
    head("2. start the engine: etcd, NATS, containerd, registry, autoscaler, node agent, ingress")
    engine = await asyncio.to_thread(start, flags)
    head("3. build the example image (busybox, no network) and deploy it")
    first = await asyncio.to_thread(build_and_deploy)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as session:
        front = Front(engine, session)
        for title, step in steps(front, first):
            head(title)
            await step()
    head(f"that was it, in {time.monotonic() - whole:.0f} s; the engine runs on")
    run = "" if engine.run == Engine().run else f" --run {engine.run}"
    say(f"call it:   curl -H 'Host: {NAME}.default.{engine.domain}' http://127.0.0.1:{engine.http_port}/")
    say(f"           or {engine.url(f'{NAME}.default.{engine.domain}')}/ in a browser on this machine")
    say("go on:     ebb deploy NAME --image IMAGE, or --archive FILE.tar (from `docker save`)")
    say(f"look:      ebb top   ebb services   ebb revisions   ebb instances   ebb logs {NAME}   ebb status{run}")
    say(f"stop:      ebb down{run}      remove everything: deploy/uninstall")


def steps(front: Front, first: str) -> list[tuple[str, Callable[[], Any]]]:
    """The parts of the demo that send requests, in order."""

    async def back() -> None:
        say(f"at zero after {await wait_for_zero():.1f} s: parked instances hold memory only, no app code runs")

    return [
        ("4. the first request, from zero", lambda: from_zero(front)),
        ("5. a burst scales out", lambda: burst(front)),
        ("6. a second revision, half the traffic", lambda: split(front, first)),
        ("7. nobody calls: back to zero", back),
    ]


def main() -> None:
    """Entry point."""
    try:
        asyncio.run(show(sys.argv[1:]))
    except Stopped as error:
        sys.stderr.write(f"\ndeploy/demo: {error}\n")
        raise SystemExit(1) from None
    except (aiohttp.ClientError, TimeoutError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"\ndeploy/demo: {error!r}; see: ebb status\n")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        sys.stderr.write("\ndeploy/demo: interrupted; the engine may still run: ebb status, ebb down\n")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
