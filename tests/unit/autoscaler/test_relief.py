"""What is parked or frozen goes by its worth when a node has too little memory, and comes back when it is called."""

import math

import msgspec

from autoscaler.fleet import Fleet
from autoscaler.need import Need
from autoscaler.plan import Wish, make
from autoscaler.profile import Profile
from autoscaler.relief import PACE_S, Relief, too_many, worth
from store.lifecycle import Phase
from store.model import Assignment, Goal, Instance, Node, Revision

MI = 1 << 20
NODE = Node(node="n", cpu_m=2000, memory_bytes=64 * 1024 * MI, slots=1000)
PRESSED = msgspec.structs.replace(NODE, pressed="memory pressure: processes waited for memory 30 % of the last 10 s")


def profile(idle_s: float, busy_at: float = 1000.0, start_s: float = 1.0) -> Profile:
    found = Profile()
    found.was_idle(idle_s)
    found.busy_at, found.start_s = busy_at, start_s
    return found


def fleet(node: Node, count: int, goal: str = Goal.PARK) -> Fleet:
    made = Fleet(lambda key: Need(key, "sha256:1", 0, 100 * MI))
    made.set_node(node)
    for number in range(count):
        phase = Phase.PARKED if goal == Goal.PARK else Phase.FROZEN
        name = f"r{number}-a"
        made.put(Assignment(instance=name, project="p", revision=f"r{number}", node="n", goal=goal, at=number), number + 1)
        made.report(Instance(instance=name, project="p", revision=f"r{number}", node="n", phase=phase, seq=1))
    return made


def test_worth_is_wake_rate_times_time_saved_by_memory() -> None:
    slot = fleet(NODE, 1, Goal.FREEZE).resting("n")[0]
    assert worth(slot, profile(100), 1000) > 1.9 * worth(slot, profile(200), 1000)
    assert math.isclose(worth(slot, profile(100, start_s=4), 1000), 4 * worth(slot, profile(100), 1000))
    assert worth(slot, profile(100), 1900) < 0.2 * worth(slot, profile(100), 1000), "silent beyond its habit"
    assert worth(slot, None, 1000) == 0
    parked = fleet(NODE, 1, Goal.PARK).resting("n")[0]
    assert worth(parked, profile(100, start_s=0.2), 1000) > worth(slot, profile(100, start_s=0.2), 1000), "it holds far less"


def test_two_hundred_parked_go_a_tenth_at_a_time_while_their_node_is_pressed_the_least_worth_first() -> None:
    crowd, relief = fleet(PRESSED, 200), Relief()
    habits = {f"p/r{number}": profile(10) for number in range(50)}  # the oldest, and the only ones that are called
    assert relief.choose(crowd, habits, 1000.0) == [f"p/r{number}" for number in range(50, 70)]
    assert relief.choose(crowd, habits, 1000.0 + PACE_S / 2) == [], "pressure is a mean of ten seconds"
    for key in relief.given_up:
        made = make(Revision(project="p", name=key[2:], image="i"), Wish(0), crowd, {}, str)
        assert [slot.assignment.revision_key for slot in made.deletes] == [key]
        made.commit(crowd, 1000)
    assert len(crowd.resting("n")) == 180
    assert len(relief.choose(crowd, habits, 1000.0 + PACE_S)) == 18
    crowd.set_node(NODE)
    assert relief.choose(crowd, habits, 1000.0 + 2 * PACE_S) == []


def test_what_was_given_up_is_kept_again_after_its_next_call() -> None:
    crowd, relief = fleet(PRESSED, 1), Relief()
    relief.choose(crowd, {}, 0.0)
    assert relief.given_up == {"p/r0": PRESSED.pressed}
    relief.called("p/r0")
    assert relief.given_up == {}


def test_a_node_keeps_no_more_than_its_bound_and_the_newest_caller_has_a_place() -> None:
    bounded = msgspec.structs.replace(NODE, parked_most=3)
    crowd, relief = fleet(bounded, 3), Relief()
    habits = {"p/r0": profile(10), "p/r2": profile(10), "p/new": profile(10)}
    assert too_many(bounded, 3) == 0
    new = Revision(project="p", name="new", image="i")
    made = make(new, Wish(0, park=True), crowd, {}, lambda name: f"{name}-b")
    assert [a.goal for a, _ in made.puts] == [Goal.PARK]
    made.commit(crowd, 1000)
    assert relief.choose(crowd, habits, 1000.0) == ["p/r1"]
    other = Revision(project="p", name="other", image="i")
    assert not make(other, Wish(0, park=True), crowd, {}, lambda name: f"{name}-b"), "one too many is enough"


def test_a_pressed_node_takes_nothing_to_park_and_still_runs_what_is_called() -> None:
    crowd = fleet(PRESSED, 0)
    new = Revision(project="p", name="new", image="i")
    assert not make(new, Wish(0, park=True), crowd, {}, lambda name: f"{name}-b")
    assert [a.goal for a, _ in make(new, Wish(1), crowd, {}, lambda name: f"{name}-b").puts] == [Goal.RUN]


def test_a_frozen_instance_that_is_given_up_drains() -> None:
    crowd, relief = fleet(PRESSED, 1, Goal.FREEZE), Relief()
    assert relief.choose(crowd, {}, 0.0) == ["p/r0"]
    made = make(Revision(project="p", name="r0", image="i"), Wish(0), crowd, {}, str)
    assert [a.goal for a, _ in made.puts] == [Goal.DRAIN]


def test_a_full_node_gives_the_place_of_the_least_worth_to_what_is_called() -> None:
    crowd = fleet(msgspec.structs.replace(NODE, slots=3), 3)
    value = {"r0-a": 3.0, "r1-a": 1.0, "r2-a": 2.0}
    made = make(Revision(project="p", name="new", image="i"), Wish(1), crowd, {}, str, lambda slot: value[slot.name])
    assert [slot.name for slot in made.deletes] == ["r1-a"]
