"""Several workers of a front door in one test: real admitters; the network between them, time and instances are the test's."""

from collections import Counter, deque
from typing import Any

from activator.admitter import Admitter
from activator.balance import Target
from activator.effects import WakeUp
from activator.wire import Word
from store.lifecycle import Phase
from store.model import Instance

GONE = "gone"


class Bus:
    connected = True

    def __init__(self) -> None:
        self.said: list[tuple[str, bytes]] = []

    def publish(self, subject: str, data: bytes) -> None:
        self.said.append((subject, data))


class Time:
    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return self.at


class Caller:
    """One request at one worker."""

    def __init__(self, world: "World", worker: "Worker", revision: str) -> None:
        self.world = world
        self.worker = worker
        self.revision = revision
        self.target: Target | None = None
        self.waiter: Any = None
        self.refusal = ""

    def dispatched(self, target: Target, waited_s: float) -> None:
        assert self.waits
        self.target = target
        self.world.enter(target.instance, self)

    def refused(self, reason: str, message: str, retry_after_s: float) -> None:
        self.refusal = reason

    @property
    def waits(self) -> bool:
        return self.target is None and not self.refusal


class NoWakes(Admitter):
    """Nothing is started here: instances come and go as the test says."""

    def _wake(self, revision: str, effect: WakeUp) -> None:
        pass


class Worker:
    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.paused = self.leaving = False
        self.callers: list[Caller] = []
        self.news: deque[Any] = deque()
        self.bus = Bus()
        self.admitter = NoWakes(self.bus, name, world.time, None, lambda *a, **k: None)  # type: ignore[arg-type]
        self.loans = self.admitter.loans
        self.loans.send = self._send
        self.loans.orphans.lingering = world.lingering

    def _send(self, peer: str, word: Word) -> None:
        self.world.streams[self.name, peer].append(word)

    def waiting(self) -> list[Caller]:
        return [caller for caller in self.callers if caller.waits]


class World:
    """`limits`: revision → container_concurrency; instances are named `<revision>-<n>`."""

    def __init__(self, limits: dict[str, int]) -> None:
        self.limits = limits
        self.time = Time()
        self.workers: dict[str, Worker] = {}
        self.keys: set[str] = set()
        self.streams: dict[tuple[str, str], deque[Any]] = {}
        self.inside: dict[str, list[Caller]] = {}
        self.phases: dict[str, Instance] = {}
        self.words: Counter[str] = Counter()

    # -- members --------------------------------------------------------------------------------------------------------------

    def join(self) -> Worker:
        worker = Worker(self, f"w{len(self.workers)}")
        for name in self.workers:
            self.streams[worker.name, name] = deque()
            self.streams[name, worker.name] = deque()
        self.workers[worker.name] = worker
        others = sorted(self.keys)
        self.keys.add(worker.name)
        for name in others:
            self.workers[name].news.append(("known", worker.name))
        worker.loans.start(dict.fromkeys(others, True), self.time.at)
        for name in others:
            self.dial(worker, name)
        for instance in self.phases.values():
            worker.admitter.heard(instance, stored=True)
        return worker

    def dial(self, worker: Worker, name: str) -> None:
        other = self.workers[name]
        if other.alive:
            self.streams[worker.name, name].append(("hello", worker.name))
            worker.loans.up(name, self.time.at)
        else:
            worker.news.append((GONE, name))

    def kill(self, worker: Worker) -> None:
        worker.alive = False
        for other in self.living():
            other.news.append((GONE, worker.name))
            self.streams[other.name, worker.name].clear()

    def leave(self, worker: Worker) -> None:
        worker.leaving = True
        worker.loans.leave(self.time.at)

    def exit(self, worker: Worker) -> bool:
        """The end of one that leaves, when nothing of its callers is left."""
        if worker.waiting() or any(caller.worker is worker for callers in self.inside.values() for caller in callers):
            return False
        self.expire(worker.name)
        self.kill(worker)
        return True

    def expire(self, name: str) -> None:
        if name in self.keys:
            self.keys.discard(name)
            for other in self.living():
                other.news.append(("unknown", name))

    def living(self) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.alive]

    # -- what moves -----------------------------------------------------------------------------------------------------------

    def movable(self) -> list[tuple[str, str] | str]:
        """Streams and workers that have something for somebody who runs."""
        found: list[tuple[str, str] | str] = [key for key, words in self.streams.items() if words and self._runs(key[1])]
        return found + [name for name, worker in self.workers.items() if worker.news and self._runs(name)]

    def _runs(self, name: str) -> bool:
        return self.workers[name].alive and not self.workers[name].paused

    def move(self, what: tuple[str, str] | str) -> None:
        now = self.time.at
        if isinstance(what, tuple):
            word = self.streams[what].popleft()
            worker = self.workers[what[1]]
            if isinstance(word, tuple):
                first = word[1] not in worker.loans.ownership.peers
                worker.loans.known(word[1], now, local=True)
                if first or not worker.loans.ownership.peers[word[1]].up:
                    self.dial(worker, word[1])
            else:
                self.words[type(word).__name__] += 1
                worker.loans.told(what[0], word, now)
            return
        worker = self.workers[what]
        kind, *rest = worker.news.popleft()
        if kind == "known":
            first = rest[0] not in worker.loans.ownership.peers
            worker.loans.known(rest[0], now, local=True)
            if first:
                self.dial(worker, rest[0])
        elif kind == "unknown":
            worker.loans.unknown(rest[0], now)
        elif kind == GONE:
            self.streams[rest[0], what].clear()
            worker.loans.lost(rest[0], now)
        else:
            worker.admitter.heard(rest[0], stored=True)

    def settle(self, seconds: float = 0.5) -> None:
        """Everything that was said is heard, and some time passes."""
        for _ in range(int(seconds / 0.05) + 1):
            for _ in range(1_000):
                movable = self.movable()
                if not movable:
                    break
                for what in movable:
                    for _ in range(len(self.streams[what]) if isinstance(what, tuple) else 1):
                        if self.streams[what] if isinstance(what, tuple) else self.workers[what].news:
                            self.move(what)
            else:
                raise AssertionError(f"they talk without end: {self.words}")
            self.advance(0.05)

    def advance(self, seconds: float) -> None:
        self.time.at += seconds
        for worker in self.living():
            if not worker.paused:
                worker.admitter.turn(self.time.at)

    # -- requests -------------------------------------------------------------------------------------------------------------

    def call(self, worker: Worker, revision: str) -> Caller:
        """As `Exchange.begin` does it."""
        caller = Caller(self, worker, revision)
        worker.callers.append(caller)
        now = self.time.at
        admitter = worker.admitter
        throttler = admitter.throttlers.get(revision)
        if throttler is None or throttler.limit != self.limits[revision]:
            throttler = admitter.throttler(revision, self.limits[revision])
        target = throttler.reserve(now, 0.3)
        if target is not None:
            caller.dispatched(target, 0)
        else:
            caller.waiter = admitter.arrive(throttler, caller, now, now + 1e6, "")
        return caller

    def give_up(self, caller: Caller) -> None:
        caller.refusal = "client-gone"
        caller.worker.admitter.leave(caller.worker.admitter.throttlers[caller.revision], caller.waiter, self.time.at)

    def finish(self, caller: Caller) -> None:
        """The instance has answered."""
        assert caller.target is not None
        self.inside[caller.target.instance].remove(caller)
        if caller.worker.alive:
            admitter = caller.worker.admitter
            admitter.release(admitter.throttlers[caller.revision], caller.target, self.time.at)

    def enter(self, instance: str, caller: Caller) -> None:
        running = self.inside.setdefault(instance, [])
        running.append(caller)
        limit = self.limits[caller.revision]
        assert len(running) <= limit or not limit, f"{len(running)} requests inside {instance}; the limit is {limit}"

    def lingering(self) -> dict[str, int]:
        found: Counter[str] = Counter()
        for instance, callers in self.inside.items():
            found[f"{instance}:80"] += sum(not caller.worker.alive for caller in callers)
        return {address: count for address, count in found.items() if count}

    # -- instances ------------------------------------------------------------------------------------------------------------

    def phase(self, instance: str, phase: Phase) -> None:
        revision = instance.rpartition("-")[0]
        project, _, name = revision.partition("/")
        old = self.phases.get(instance)
        news = Instance(
            instance=instance, project=project, revision=name, node="n", phase=phase,
            address=f"{instance}:80", seq=old.seq + 1 if old else 1,
        )  # fmt: skip
        self.phases[instance] = news
        for worker in self.living():
            worker.news.append(("instance", news))
