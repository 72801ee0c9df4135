"""Whatever happens in whatever order: the limit holds, the line is first in first out, nobody is lost."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from activator.balance import State
from activator.effects import Dispatch, Refuse
from activator.throttler import Throttler
from store.lifecycle import Phase
from store.messages import Refusal
from store.model import Instance

BOUND = 6
names = st.sampled_from(["i1", "i2", "i3"])


class Admission(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.throttler: Throttler[int] = Throttler("p/r", 2, bound=BOUND)
        self.waiting: list = []
        self.flying: list = []
        self.count = 0
        self.limits = {2}
        self.seqs: dict[str, int] = {}

    def perform(self, effects) -> None:
        for effect in effects:
            if isinstance(effect, Dispatch):
                assert effect.request == self.waiting[0][0], "first in, first out"
                self.waiting.pop(0)
                assert effect.target.state is State.SERVING
                self.flying.append(effect.target)
            elif isinstance(effect, Refuse) and effect.reason != "queue-full":
                assert effect.request == self.waiting[0][0]
                self.waiting.pop(0)

    @rule(chance=st.floats(0, 1, exclude_max=True))
    def request(self, chance: float) -> None:
        self.count += 1
        target = self.throttler.reserve(self.now, chance)
        if target is not None:
            assert not self.waiting, "nobody overtakes"
            assert target.state is State.SERVING
            self.flying.append(target)
            return
        waiter, effects = self.throttler.arrive(self.count, self.now, self.now + 5)
        if waiter is not None:
            self.waiting.append((self.count, waiter))
        else:
            assert len(self.waiting) >= BOUND
        self.perform(effects)

    @rule(place=st.integers(0, 100))
    def release(self, place: int) -> None:
        if self.flying:
            self.perform(self.throttler.release(self.flying.pop(place % len(self.flying)), self.now))

    @rule(place=st.integers(0, 100))
    def leave(self, place: int) -> None:
        if self.waiting:
            _, waiter = self.waiting.pop(place % len(self.waiting))
            assert self.throttler.leave(waiter, self.now)

    @rule(name=names, phase=st.sampled_from(list(Phase)), stored=st.booleans(), step=st.integers(-1, 2))
    def hear(self, name: str, phase: Phase, stored: bool, step: int) -> None:
        seq = max(0, self.seqs.get(name, 0) + step)
        self.seqs[name] = max(seq, self.seqs.get(name, 0))
        heard = Instance(instance=name, project="p", revision="r", node="n", phase=phase, address=f"{name}:80", seq=seq)
        self.perform(self.throttler.heard(heard, self.now, stored=stored))

    @rule(name=names)
    def forget(self, name: str) -> None:
        self.perform(self.throttler.forgotten(name, self.now))

    @rule(name=names)
    def fail(self, name: str) -> None:
        target = self.throttler.targets.get(name)
        if target is not None:
            self.perform(self.throttler.unreachable(target, self.now))

    @rule(name=names)
    def reach(self, name: str) -> None:
        target = self.throttler.targets.get(name)
        if target is not None:
            self.perform(self.throttler.reached(target, self.now))

    @rule(name=names, silent=st.booleans())
    def owe(self, name: str, silent: bool) -> None:
        target = self.throttler.targets.get(name)
        if target is not None:
            self.perform(self.throttler.unanswered(target, self.now, silent=silent))
            serving = [each for each in self.throttler.targets.values() if each.state is State.SERVING]
            if target.ejected_until > self.now and target.mute:
                assert sum(each.mute for each in serving) * 2 <= len(serving), "half of them at most"

    @rule(name=names)
    def answer(self, name: str) -> None:
        target = self.throttler.targets.get(name)
        if target is not None:
            self.perform(self.throttler.answered(target, self.now))

    @rule(limit=st.integers(0, 3))
    def limit(self, limit: int) -> None:
        self.perform(self.throttler.limited(limit, self.now))

    @rule()
    def refuse(self) -> None:
        self.perform(self.throttler.refused(Refusal(revision="p/r", reason="NoRoom", message=""), self.now))

    @rule(seconds=st.floats(0.01, 3))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.perform(self.throttler.tick(self.now))

    @invariant()
    def the_counts_are_true(self) -> None:
        made = self.throttler
        assert made.in_flight == len(self.flying)
        assert len(made.line) == len(self.waiting)
        assert made.load.present == len(self.flying) + len(self.waiting)
        for target in {*self.flying, *made.targets.values()}:
            assert target.in_flight == self.flying.count(target)

    @invariant()
    def open_means_room(self) -> None:
        made = self.throttler
        for place, target in enumerate(made.balance.open):
            assert target.place == place
            assert target.room
            assert target.state is State.SERVING
            assert target.in_flight < target.limit
            assert made.targets[target.instance] is target
        for target in made.targets.values():
            fit = target.room and target.state is State.SERVING and not target.ejected_until
            assert (target.place >= 0) == fit

    @invariant()
    def nobody_waits_beside_a_free_slot(self) -> None:
        assert not (self.waiting and self.throttler.balance.open)


class Exactness(RuleBasedStateMachine):
    """With a constant limit, in flight at one instance never exceeds it, at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission()

    @rule(chance=st.floats(0, 1, exclude_max=True))
    def request(self, chance: float) -> None:
        self.admission.request(chance)

    @rule(place=st.integers(0, 100))
    def release(self, place: int) -> None:
        self.admission.release(place)

    @rule(name=names, phase=st.sampled_from(list(Phase)), step=st.integers(0, 2))
    def hear(self, name: str, phase: Phase, step: int) -> None:
        self.admission.hear(name, phase, True, step)

    @rule(name=names)
    def fail(self, name: str) -> None:
        self.admission.fail(name)

    @rule(seconds=st.floats(0.01, 3))
    def wait(self, seconds: float) -> None:
        self.admission.wait(seconds)

    @invariant()
    def never_above_the_limit(self) -> None:
        for target in self.admission.flying:
            assert target.in_flight <= 2


TestAdmission = Admission.TestCase
TestAdmission.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestExactness = Exactness.TestCase
TestExactness.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
