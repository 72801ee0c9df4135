"""Who has short turns at the processors."""

from hypothesis import given
from hypothesis import strategies as st

from nodeagent.turns import BUSY_M, CALM_AFTER, CALM_M, FIRST_AFTER, Turns


def looks(*uses_m: float) -> list[dict[str, bool]]:
    """What is told at each second of an instance that uses so much in it."""
    turns, used, found = Turns(), 5.0, []
    assert turns.look({"i": used}, 100.0) == {}
    for n, use_m in enumerate(uses_m, 1):
        used += use_m / 1000
        found.append(turns.look({"i": used}, 100.0 + n))
    return found


def test_who_is_quiet_from_the_beginning_is_calm_soon_is_told_twice_and_then_left_alone() -> None:
    assert looks(*[10] * 6) == [{}] * (FIRST_AFTER - 1) + [{"i": True}] * 2 + [{}] * 3


def test_who_was_not_has_to_be_quiet_for_longer() -> None:
    assert looks(300, *[10] * (CALM_AFTER + 3)) == [{}] * CALM_AFTER + [{"i": True}] * 2 + [{}] * 2


def test_who_is_busy_is_told_each_time_for_its_new_threads() -> None:
    assert looks(1000, 1000, 2000) == [{"i": False}] * 3


def test_who_rests_between_its_bursts_never_becomes_calm() -> None:
    assert looks(2000, *[10, 10, 10, 2000] * 5) == [{"i": False}] + [{}, {}, {}, {"i": False}] * 5


def test_who_is_calm_stays_so_until_it_is_busy() -> None:
    between = (CALM_M + BUSY_M) / 2
    assert looks(10, 10, between, between, BUSY_M + 1, 10) == [{}, {"i": True}, {"i": True}, {}, {"i": False}, {}]
    assert looks(*[between] * CALM_AFTER * 2) == [{}] * CALM_AFTER * 2


def test_one_that_ends_is_forgotten() -> None:
    turns = Turns()
    told = [turns.look({"i": 1.0}, now) for now in range(FIRST_AFTER + 1)]
    assert told[-1] == {"i": True}
    assert [turns.look(used, 20.0 + n) for n, used in enumerate([{}, {"i": 0.0}, {"i": 0.0}])] == [{}] * 3


@given(st.lists(st.one_of(st.floats(0, 100), st.floats(0, 4000)), min_size=2, max_size=60))
def test_who_has_short_turns_was_quiet_for_a_while_and_is_not_busy(uses_m: list[float]) -> None:
    has = False
    for n, (use_m, told) in enumerate(zip(uses_m, looks(*uses_m), strict=True), 1):
        if told.get("i") and not has:
            assert n >= FIRST_AFTER
            assert all(each < CALM_M + 0.001 for each in uses_m[max(0, n - CALM_AFTER) : n])
        has = told.get("i", has)
        assert not (has and use_m > BUSY_M + 0.001)
