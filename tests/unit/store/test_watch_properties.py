"""Tables converge to the store under any order of writes and faults."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from store.memory import MemoryStore
from tests.unit.store.test_watch import Kept, P, member, settle
from tests.virtual import run

names = st.sampled_from(["a", "b", "c"])
step = st.one_of(
    st.tuples(st.just("put"), names, st.integers(0, 3)),
    st.tuples(st.just("delete"), names, st.just(0)),
    st.tuples(st.sampled_from(["drop", "compact", "lose", "turn", "fail", "wait"]), st.just(""), st.integers(1, 3)),
)


@settings(max_examples=150)
@given(st.lists(step, max_size=40))
def test_it_converges_to_the_store_under_any_faults(script: list[tuple[str, str, int]]) -> None:
    async def body() -> None:
        store = MemoryStore()
        kept = Kept(store, compare_s=0.02)
        await kept.table.synced()
        for verb, name, number in script:
            await act(store, verb, name, number)
        store._failures = 0
        wanted = {entry.key: entry for entry in (await store.list(P)).entries}
        async with asyncio.timeout(5):
            while {key: kept.table.entry(key) for key in kept.told} != wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert dict(kept.table.items()) == kept.told
        await kept.close()

    async def act(store: MemoryStore, verb: str, name: str, number: int) -> None:
        match verb:
            case "put" | "delete":
                store._failures, kept_failures = 0, store._failures
                await (store.put(P + name, member(name, str(number))) if verb == "put" else store.delete(P + name))
                store._failures = kept_failures
            case "drop":
                store.drop_watchers()
            case "compact":
                store.compact()
            case "lose":
                store.lose_events()
            case "fail":
                store.fail_next(number)
            case "wait":
                await asyncio.sleep(0.01 * number)
            case _:
                await settle()

    run(body)
