"""Workers join, leave, die, pause; words come late; and still no instance has more than its limit, and nobody is forgotten."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from store.lifecycle import Phase
from tests.unit.activator.workers import Worker, World

places = st.integers(0, 1000)
LIMITS = {"p/one": 1, "p/two": 2}
INSTANCES = [f"{revision}-{n}" for revision in LIMITS for n in (1, 2)]


class Workers(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World(LIMITS)

    @initialize(workers=st.integers(1, 3), instances=st.integers(1, 4), calm=st.booleans())
    def begin(self, workers: int, instances: int, calm: bool) -> None:
        for name in INSTANCES[:instances]:
            self.world.phase(name, Phase.READY)
        for _ in range(workers):
            self.world.join()
        if calm:
            self.world.settle()

    def one(self, place: int) -> Worker | None:
        running = [worker for worker in self.world.living() if not worker.paused]
        return running[place % len(running)] if running else None

    @precondition(lambda self: len(self.world.living()) < 4 and len(self.world.workers) < 8)
    @rule()
    def join(self) -> None:
        self.world.join()

    @rule(place=places)
    def kill(self, place: int) -> None:
        worker = self.one(place)
        if worker is not None:
            self.world.kill(worker)

    @rule(place=places)
    def leave(self, place: int) -> None:
        worker = self.one(place)
        if worker is not None and not worker.leaving:
            self.world.leave(worker)

    @rule(place=places)
    def exit(self, place: int) -> None:
        worker = self.one(place)
        if worker is not None and worker.leaving:
            self.world.exit(worker)

    @rule(place=places)
    def pause_or_go_on(self, place: int) -> None:
        living = self.world.living()
        if living:
            worker = living[place % len(living)]
            worker.paused = not worker.paused

    @rule(place=places)
    def key_expires(self, place: int) -> None:
        dead = [name for name in sorted(self.world.keys) if not self.world.workers[name].alive]
        if dead:
            self.world.expire(dead[place % len(dead)])

    @rule(places=st.lists(places, min_size=1, max_size=12))
    def words_arrive(self, places: list[int]) -> None:
        for place in places:
            movable = self.world.movable()
            if movable:
                self.world.move(movable[place % len(movable)])

    @rule(place=places, revision=st.sampled_from(sorted(LIMITS)), count=st.integers(1, 3))
    def call(self, place: int, revision: str, count: int) -> None:
        worker = self.one(place)
        for _ in range(count if worker is not None else 0):
            self.world.call(worker, revision)  # type: ignore[arg-type]

    @rule(place=places)
    def finish(self, place: int) -> None:
        inside = [
            caller
            for callers in self.world.inside.values()
            for caller in callers
            if not (caller.worker.alive and caller.worker.paused)
        ]
        if inside:
            self.world.finish(inside[place % len(inside)])

    @rule(place=places)
    def give_up(self, place: int) -> None:
        waiting = [c for worker in self.world.living() if not worker.paused for c in worker.waiting()]
        if waiting:
            self.world.give_up(waiting[place % len(waiting)])

    @rule(name=st.sampled_from(INSTANCES), phase=st.sampled_from([Phase.READY, Phase.STARTING, Phase.DRAINING, Phase.STOPPED]))
    def instance(self, name: str, phase: Phase) -> None:
        old = self.world.phases.get(name)
        if old is None or old.phase not in (Phase.STOPPED, Phase.DRAINING) or phase is Phase.STOPPED:
            self.world.phase(name, phase)

    @rule(seconds=st.sampled_from([0.05, 0.2, 1.1]))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    def teardown(self) -> None:
        """Once it is quiet, everybody is served, and no slot is lost."""
        world = self.world
        for worker in world.living():
            worker.paused = False
        for revision in LIMITS:
            world.phase(f"{revision}-9", Phase.READY)
        world.settle()
        for _ in range(200):
            inside = [caller for callers in world.inside.values() for caller in callers]
            if not inside and not any(worker.waiting() for worker in world.living()):
                break
            for caller in inside:
                world.finish(caller)
            world.settle(0.1)
        for worker in world.living():
            assert not worker.waiting(), f"forgotten at {worker.name}"
        world.settle(2.5)
        for worker in world.living()[:1]:
            for revision, limit in LIMITS.items():
                ready = [i for i in world.phases.values() if i.revision_key == revision and i.phase is Phase.READY]
                callers = [world.call(worker, revision) for _ in range(limit * len(ready))]
                world.settle(0.2)
                assert not any(caller.waits for caller in callers), f"slots of {revision} are lost"


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
