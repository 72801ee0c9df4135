"""Two or three workers share one revision's slots: what is said, who is next, and what moves with ownership."""

from activator.ownership import ORPHAN_S
from store.lifecycle import Phase
from tests.unit.activator.workers import Worker, World

REVISION = "p/r"


def world(limit: int, workers: int = 2, instances: int = 1) -> World:
    made = World({REVISION: limit})
    for number in range(instances):
        made.phase(f"{REVISION}-{number}", Phase.READY)
    for _ in range(workers):
        made.join()
    made.settle()
    for worker in made.living():
        made.finish(call(made, worker))  # From now on everybody knows the revision.
        made.settle(1.2)
        made.settle(1.2)
    made.words.clear()
    return made


def call(made: World, worker: Worker):
    caller = made.call(worker, REVISION)
    made.settle(0)
    return caller


def parts(made: World) -> tuple[Worker, Worker]:
    """(the owner, another)"""
    owner = next(worker for worker in made.living() if worker.admitter.throttlers[REVISION].ruled)
    return owner, next(worker for worker in made.living() if worker is not owner)


def test_one_worker_says_nothing_and_rules_all() -> None:
    made = world(2, workers=1)
    assert made.living()[0].admitter.throttlers[REVISION].ruled
    assert not made.words


def test_exactly_one_worker_rules_a_revision_with_a_limit() -> None:
    made = world(1, workers=3)
    assert [worker.admitter.throttlers[REVISION].ruled for worker in made.living()].count(True) == 1


def test_without_a_limit_every_worker_uses_every_instance_and_no_word_is_said() -> None:
    made = World({REVISION: 0})
    made.phase(f"{REVISION}-0", Phase.READY)
    for _ in range(2):
        made.join()
    made.settle()
    made.words.clear()
    assert not any(call(made, worker).waits for worker in made.living() for _ in range(50))
    assert not made.words


def test_a_slot_once_lent_serves_the_next_request_without_a_word() -> None:
    made = world(5)
    _, other = parts(made)
    made.finish(call(made, other))
    assert made.words == {"Ask": 1, "Grant": 1}
    for _ in range(20):
        made.finish(call(made, other))
    assert made.words == {"Ask": 1, "Grant": 1}


def test_a_slot_that_is_kept_goes_to_who_waits_elsewhere() -> None:
    made = world(1)
    owner, other = parts(made)
    made.finish(call(made, other))
    assert not call(made, owner).waits
    assert made.words == {"Ask": 1, "Grant": 1, "Recall": 1, "Return": 1}


def test_slots_of_a_revision_nobody_calls_go_home() -> None:
    made = world(5)
    owner, other = parts(made)
    made.finish(call(made, other))
    made.settle(2.5)
    assert [target.lent for target in owner.admitter.throttlers[REVISION].targets.values()] == [0]


def test_over_all_workers_who_came_first_is_served_first() -> None:
    made = world(1)
    workers = parts(made)
    running = call(made, workers[0])
    waiting = []
    for number in range(8):
        made.advance(0.001)
        waiting.append(call(made, workers[number % 2]))
    for caller in waiting:
        assert caller.waits
        made.finish(running)
        made.settle(0)
        assert not caller.waits
        running = caller


def test_places_kept_for_others_take_none_from_the_owners_own() -> None:
    made = world(1)
    owner, other = parts(made)
    call(made, owner)
    bound = owner.admitter.throttlers[REVISION].line.bound = other.admitter.throttlers[REVISION].line.bound = 3
    theirs = [call(made, other) for _ in range(bound + 1)]
    assert [caller.refusal for caller in theirs] == ["", "", "", "queue-full"]
    ours = [call(made, owner) for _ in range(bound + 1)]
    assert [caller.refusal for caller in ours] == ["", "", "", "queue-full"]


def test_who_has_left_the_line_is_not_given_a_slot() -> None:
    made = world(1)
    owner, other = parts(made)
    running = call(made, owner)
    leaves, stays = call(made, other), call(made, other)
    made.give_up(leaves)
    made.settle(0)
    assert made.words["Cancel"] == 1
    assert len(owner.admitter.throttlers[REVISION].line) == 1
    made.finish(running)
    made.settle(0)
    assert not stays.waits


def test_requests_are_counted_where_they_are() -> None:
    made = world(2)
    owner, other = parts(made)
    for _ in range(3):
        call(made, other)
    at_owner, at_other = (worker.admitter.throttlers[REVISION] for worker in (owner, other))
    assert (at_owner.in_flight, at_owner.load.present) == (0, 0)
    assert (at_other.in_flight, at_other.load.present, len(at_other.line)) == (2, 3, 1)


def test_an_owner_that_dies_is_succeeded_and_its_requests_slots_are_not_given_out_while_they_run() -> None:
    made = world(1)
    owner, other = parts(made)
    running = call(made, owner)
    waiting = call(made, other)
    made.kill(owner)
    made.settle(ORPHAN_S + 1)
    assert waiting.waits, "the app is still busy with what the dead worker sent"
    made.finish(running)
    made.settle(0.2)
    assert not waiting.waits


def test_what_a_dead_borrower_held_comes_back_when_it_has_ended() -> None:
    made = world(1)
    owner, other = parts(made)
    running = call(made, other)
    waiting = call(made, owner)
    made.kill(other)
    made.settle(1)
    assert waiting.waits
    made.finish(running)
    made.settle(0.2)
    assert not waiting.waits


def test_a_new_worker_takes_over_its_part_and_the_line_keeps_its_order() -> None:
    for _ in range(1):
        made = world(1, workers=1)
        first = made.living()[0]
        running = call(made, first)
        waiting = []
        for _ in range(5):
            made.advance(0.001)
            waiting.append(call(made, first))
        joined = [made.join() for _ in range(3)]
        made.settle()
        late = call(made, joined[0])
        for caller in [*waiting, late]:
            made.finish(running)
            made.settle(0)
            assert not caller.waits
            running = caller


def test_one_that_leaves_gives_up_what_it_owned_and_finishes_what_it_has() -> None:
    made = world(2)
    owner, other = parts(made)
    running = call(made, owner)
    made.leave(owner)
    made.settle()
    assert other.admitter.throttlers[REVISION].ruled
    assert not call(made, other).waits
    second = call(made, other)
    assert second.waits, "one of the two slots is with the request of the one that leaves"
    made.finish(running)
    made.settle(0)
    assert not second.waits
    assert made.exit(owner)


def test_a_draining_instance_is_told_of_by_everybody_when_nothing_of_his_is_there() -> None:
    made = world(2)
    owner, other = parts(made)
    running = call(made, other)
    for worker in (owner, other):
        worker.bus.said.clear()
    made.phase(f"{REVISION}-0", Phase.DRAINING)
    made.settle(0)

    def told(worker: Worker) -> bool:
        return any(subject.startswith("ebb.drained") for subject, _ in worker.bus.said)

    assert not told(other)
    made.finish(running)
    made.settle(0)
    assert told(other)
    assert told(owner)


def test_a_paused_worker_keeps_what_it_has_and_nobody_takes_it() -> None:
    made = world(1)
    owner, other = parts(made)
    made.finish(call(made, owner))
    owner.paused = True
    waiting = call(made, other)
    made.expire(owner.name)
    made.settle(10)
    assert waiting.waits
    owner.paused = False
    made.settle(0.2)
    assert not waiting.waits
