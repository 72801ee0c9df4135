"""Quotas bound what a project has, whatever nodes could take; and where room is short it goes to who holds least for its weight."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.fleet import Fleet
from autoscaler.need import Need
from autoscaler.plan import NOT_ITS_TURN, OVER_QUOTA, Plan, Wish, make
from store import keys
from store.lifecycle import Phase
from store.model import Goal, Instance, Node, Revision, encode
from store.projects import Project, Quota
from tests.unit.autoscaler.world import World, play

MI = 1 << 20


class Cluster:
    """A fleet whose every plan is written, and whose instances do at once what they shall."""

    def __init__(self, memory: int = 1000, slots: int = 100) -> None:
        self.revisions: dict[str, Revision] = {}
        self.fleet = Fleet(lambda key: Need.of(self.revisions[key]))
        self.fleet.set_node(Node(node="n", cpu_m=2000, memory_bytes=memory * MI, slots=slots))
        self._numbers = itertools.count(1)

    def tidy(self) -> None:
        """What has ended is forgotten."""
        for key in self.revisions:
            for slot in list(self.fleet.of(key)):
                if slot.ended:
                    self.fleet.remove(slot.name)

    def scale(self, key: str, desired: int, *, memory: int = 100, freeze: bool = False, park: bool = False) -> Plan:
        project, name = key.split("/")
        self.revisions[key] = Revision(
            project=project, name=name, image="i@sha256:1", memory_request_bytes=memory * MI, cpu_request_m=100
        )
        names = self._numbers
        made = make(
            self.revisions[key],
            Wish(desired, freeze=freeze, park=park),
            self.fleet,
            {},
            lambda r: f"{project}-{r}-{next(names)}",
        )
        made.commit(self.fleet, next(self._numbers))
        phases = {Goal.RUN: Phase.READY, Goal.PARK: Phase.PARKED, Goal.FREEZE: Phase.FROZEN, Goal.DRAIN: Phase.STOPPED}
        for a, _ in made.puts:
            self.fleet.report(
                Instance(
                    instance=a.instance, project=project, revision=name, node="n", phase=phases[a.goal], seq=next(self._numbers)
                )
            )
        return made


@pytest.mark.parametrize(
    ("quota", "said"),
    [
        (Quota(instances=2), "project shop is at its quota of 2 instances"),
        (Quota(cpu_m=250), "project shop is at its quota of 250m of CPU: 200m are taken, one more needs 100m"),
        (
            Quota(memory_bytes=290 * MI),
            "project shop is at its quota of 290Mi of memory: 200Mi are taken, one more needs 100Mi",
        ),
    ],
)
def test_a_project_gets_what_its_quota_allows_and_is_told_what_it_is_beyond(quota: Quota, said: str) -> None:
    cluster = Cluster()
    cluster.fleet.shares.know("shop", quota)
    made = cluster.scale("shop/cart", 3)
    assert (made.placed, made.unplaced, made.unplaced_as) == (2, said, OVER_QUOTA)
    assert cluster.scale("bank/web", 3).placed == 3, "another project's quota is its own"
    assert cluster.scale("shop/cart", 1).drained == 1
    assert cluster.scale("shop/page", 1).placed == 1, "what has ended counts no longer, and all revisions count together"


def test_parked_instances_are_free_of_quota_and_are_woken_only_within_it() -> None:
    cluster = Cluster()
    cluster.fleet.shares.know("shop", Quota(instances=1))
    assert cluster.scale("shop/cart", 0, park=True).puts
    assert cluster.scale("shop/page", 0, park=True).puts
    assert cluster.scale("shop/cart", 1).woken == 1
    made = cluster.scale("shop/page", 1)
    assert (made.woken, made.unplaced_as) == (0, OVER_QUOTA)


def test_a_frozen_instance_gives_its_memory_of_the_quota_to_one_that_shall_run() -> None:
    cluster = Cluster()
    cluster.fleet.shares.know("shop", Quota(memory_bytes=250 * MI))
    cluster.scale("shop/cart", 1)
    cluster.scale("shop/cart", 0, freeze=True)
    cluster.scale("shop/page", 1)
    made = cluster.scale("shop/list", 1)
    assert (made.placed, [slot.assignment.revision for slot in made.deletes]) == (1, ["cart"])
    assert cluster.scale("shop/more", 1).unplaced_as == OVER_QUOTA


@given(
    st.lists(st.tuples(st.sampled_from(["a/x", "a/y", "b/x"]), st.integers(0, 6), st.booleans(), st.booleans()), max_size=25),
    st.integers(0, 5), st.integers(0, 400), st.integers(0, 600),
)  # fmt: skip
def test_no_quota_is_ever_exceeded_and_what_is_held_is_what_stands(
    steps: list[tuple[str, int, bool, bool]], instances: int, cpu_m: int, memory: int
) -> None:
    cluster = Cluster()
    quota = Quota(instances=instances, cpu_m=cpu_m, memory_bytes=memory * MI)
    cluster.fleet.shares.know("a", quota)
    for key, desired, freeze, park in steps:
        cluster.scale(key, desired, freeze=freeze, park=park)
        standing = [s for r in cluster.revisions for s in cluster.fleet.of(r) if not s.ended and r.startswith("a/")]
        runs = [s for s in standing if s.goal == Goal.RUN]
        held = [s for s in standing if s.goal != Goal.PARK]
        assert cluster.fleet.shares.held("a") == (len(runs), 100 * len(runs), 100 * MI * len(held))
        for bound, found in zip((instances, cpu_m, memory * MI), cluster.fleet.shares.held("a"), strict=True):
            assert not bound or found <= bound


def test_room_that_becomes_free_goes_to_who_holds_least_for_its_weight() -> None:
    cluster = Cluster(memory=400)
    assert cluster.scale("big/r", 9).placed == 4
    assert cluster.scale("small/r", 1).unplaced_as == "NoRoom"
    cluster.scale("big/r", 3)
    cluster.tidy()
    made = cluster.scale("big/r", 4)
    assert (made.placed, made.first, made.unplaced_as) == (0, "small/r", NOT_ITS_TURN)
    assert cluster.scale("small/r", 1).placed == 1
    cluster.scale("big/r", 2)
    cluster.tidy()
    assert cluster.scale("big/r", 3).placed == 1, "nobody else waits"


def test_a_project_of_three_times_the_weight_gets_three_times_the_room() -> None:
    cluster = Cluster(memory=800)
    cluster.fleet.shares.know("gold", weight=3)
    cluster.scale("other/r", 8)
    for _ in range(20):  # What ends somewhere is room for whoever comes next; both come, the light one first.
        standing = {p: len(cluster.fleet.running(f"{p}/r")) for p in ("iron", "gold", "other")}
        cluster.scale("other/r", max(0, standing["other"] - 1))
        cluster.tidy()
        for project in ("iron", "gold", "iron"):
            cluster.scale(f"{project}/r", 8)
    assert len(cluster.fleet.running("gold/r")) == 6
    assert len(cluster.fleet.running("iron/r")) == 2


def test_nobody_is_kept_from_room_that_who_waits_does_not_fit_into() -> None:
    cluster = Cluster(memory=400)
    cluster.scale("big/r", 4)
    assert cluster.scale("small/r", 1, memory=300).unplaced_as == "NoRoom"
    cluster.scale("big/r", 3)
    cluster.tidy()
    assert cluster.scale("big/r", 4).placed == 1


def test_who_needs_no_room_any_more_keeps_nobody_from_it() -> None:
    cluster = Cluster(memory=400)
    cluster.scale("big/r", 4)
    cluster.scale("small/r", 1)
    cluster.scale("small/r", 0)
    cluster.scale("big/r", 3)
    cluster.tidy()
    assert cluster.scale("big/r", 4).placed == 1


def test_a_quota_is_read_from_the_projects_record_and_a_higher_one_lets_it_go_on() -> None:
    play(_with_a_quota)


async def _with_a_quota(world: World) -> None:
    await world.store.put(keys.project("p"), encode(Project(name="p", quota=Quota(instances=1))))
    await world.deploy("r", cc=1)
    await asyncio.sleep(1)
    await world.traffic("r", 3, 4)
    scale = await world.scale("r")
    assert (scale.unplaced, scale.unplaced_as) == ("project p is at its quota of 1 instances", OVER_QUOTA)
    assert world.goals("r") == [Goal.RUN]
    await world.store.put(keys.project("p"), encode(Project(name="p", quota=Quota(instances=3))))
    await world.traffic("r", 3, 4)
    assert world.goals("r") == [Goal.RUN] * 3
