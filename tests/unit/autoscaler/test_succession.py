import subprocess
import sys

from autoscaler.succession import bury, identity, is_dead
from store import keys
from store.memory import MemoryStore
from tests import virtual


def test_a_living_process_is_not_dead() -> None:
    assert not is_dead(identity())


def test_a_process_that_ended_is_dead() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from autoscaler.succession import identity; print(identity())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert is_dead(done.stdout.strip())


def test_another_process_with_the_same_pid_is_not_the_one_that_died() -> None:
    assert is_dead(identity().rpartition(".")[0] + ".1")


def test_of_another_machine_or_name_nothing_is_known() -> None:
    assert not is_dead("another-boot.1.2.3")
    assert not is_dead("operator-given")
    assert not is_dead("")


def test_only_a_dead_leader_is_buried() -> None:
    async def body() -> None:
        store = MemoryStore()
        key = keys.election("autoscaler")
        assert not await bury(store, "autoscaler")
        await store.put(key, identity().encode())
        assert not await bury(store, "autoscaler")
        await store.put(key, (identity().rpartition(".")[0] + ".1").encode())
        assert await bury(store, "autoscaler")
        assert await store.get(key) is None
        await store.close()

    virtual.run(body)
