"""The twin against the simplest model of a store: a list of snapshots, one a revision."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import Compacted, Conflict
from store.memory import MemoryStore
from store.txn import Delete, Guard, Put, Txn
from tests.virtual import run

KEYS = ("/a", "/a/1", "/ab", "/b", "/b/ü")
keys = st.sampled_from(KEYS)
writes = st.lists(
    st.one_of(st.builds(Put, keys, st.binary(max_size=3)), st.builds(Delete, keys)),
    max_size=4,
    unique_by=lambda write: write.key,
)
guards = st.lists(st.tuples(keys, st.sampled_from(["mod", "absent", "created", "wrong"])), max_size=2)
steps = st.lists(st.tuples(writes, guards), max_size=30)

Snapshot = dict[str, tuple[bytes, int, int]]
"""key → (value, store_rev, created_rev)"""


class Model:
    """All that ever was."""

    def __init__(self) -> None:
        self.rev = 1
        self.past: dict[int, Snapshot] = {1: {}}

    @property
    def now(self) -> Snapshot:
        return self.past[self.rev]

    def guard(self, key: str, kind: str) -> Guard:
        _, rev, created = self.now.get(key, (b"", 0, 0))
        if kind == "created":
            return Guard(key, created_rev=created)
        return Guard(key, {"mod": rev, "absent": 0, "wrong": rev + 1}[kind])

    def holds(self, key: str, kind: str) -> bool:
        return kind in ("mod", "created") or (kind == "absent" and key not in self.now)

    def write(self, what: list[Any]) -> None:
        after = dict(self.now)
        for write in what:
            if isinstance(write, Delete):
                after.pop(write.key, None)
            else:
                created = self.now[write.key][2] if write.key in self.now else self.rev + 1
                after[write.key] = (write.value, self.rev + 1, created)
        if any(isinstance(write, Put) or write.key in self.now for write in what):
            self.rev += 1
            self.past[self.rev] = after


async def played(store: MemoryStore, model: Model, script: list[tuple[list[Any], list[tuple[str, str]]]]) -> None:
    for what, wanted in script:
        txn = Txn(tuple(model.guard(key, kind) for key, kind in wanted), tuple(what))
        if all(model.holds(key, kind) for key, kind in wanted):
            rev = await store.commit(txn)
            model.write(what)
            assert rev == model.rev
        else:
            try:
                await store.commit(txn)
            except Conflict:
                continue
            raise AssertionError("a guard that does not hold was let through")


async def listed(store: MemoryStore, prefix: str, at: int = 0) -> Snapshot:
    listing = await store.list(prefix, at=at)
    return {entry.key: (entry.value, entry.store_rev, entry.created_rev) for entry in listing.entries}


def under(snapshot: Snapshot, prefix: str) -> Snapshot:
    return {key: snapshot[key] for key in sorted(snapshot) if key.startswith(prefix)}


@given(steps, st.sampled_from(["", "/", "/a", "/a/", "/b"]))
def test_every_revision_of_the_twin_is_as_in_the_model(script: list[Any], prefix: str) -> None:
    async def body() -> None:
        store, model = MemoryStore(), Model()
        await played(store, model, script)
        assert await listed(store, prefix) == under(model.now, prefix)
        assert await store.count(prefix) == len(under(model.now, prefix))
        for rev, snapshot in model.past.items():
            assert await listed(store, prefix, at=rev) == under(snapshot, prefix)

    run(body)


@given(steps, st.integers(0, 30), st.integers(0, 30))
def test_a_watch_replays_any_kept_past_into_the_present(script: list[Any], after: int, compacted: int) -> None:
    async def body() -> None:
        store, model = MemoryStore(), Model()
        await played(store, model, script)
        start = min(after + 1, model.rev)
        if compacted:
            store.compact(min(compacted, model.rev))
        state = {key: value for key, (value, _, _) in model.past[start].items()}
        if start + 1 < min(compacted, model.rev):
            with pytest.raises(Compacted):
                await replayed(store, state, start, model.rev)
        else:
            await replayed(store, state, start, model.rev)
            assert state == {key: value for key, (value, _, _) in model.now.items()}

    async def replayed(store: MemoryStore, state: dict[str, bytes], start: int, end: int) -> None:
        expected = start
        batches = store.watch("", after=start)
        try:
            while expected < end or start + 1 < store._compacted:
                batch = await anext(batches)
                expected += 1
                assert {change.store_rev for change in batch} == {expected}
                for change in batch:
                    assert change.previous == state.get(change.key)
                    if change.value is None:
                        del state[change.key]
                    else:
                        state[change.key] = change.value
        finally:
            await batches.aclose()  # type: ignore[attr-defined]

    run(body)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(["put", "free", "wait"]), keys, st.integers(1, 5)), max_size=20))
def test_a_key_under_a_lease_lives_exactly_as_long(script: list[tuple[str, str, int]]) -> None:
    class Hand:
        at = 0.0

        def now(self) -> float:
            return self.at

        def wall(self) -> float:
            return self.at

    async def body() -> None:
        clock = Hand()
        store = MemoryStore(clock)
        ends: dict[str, float] = {}
        for verb, key, number in script:
            if verb == "put":
                await store.put(key, b"", lease=await store.grant(number))
                ends[key] = clock.at + number
            elif verb == "free":
                await store.put(key, b"")
                ends[key] = float("inf")
            else:
                clock.at += number
            ends = {key: end for key, end in ends.items() if end > clock.at}
            assert {entry.key for entry in (await store.list("")).entries} == set(ends)
        await store.close()

    run(body)
