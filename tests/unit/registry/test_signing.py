"""Keys that sign identity tokens come and go without a token that nobody can verify."""

from hypothesis import given
from hypothesis import strategies as st

from registry import signing
from registry.signing import KEPT_S, PUBLISHED_S, ROTATE_S
from store.identity import TOKEN_S


def test_the_first_key_signs_at_once_and_the_next_when_everybody_knows_it() -> None:
    assert signing.current({}, 0) is None
    assert signing.wanted({}, 0)
    assert signing.current({"a": 0}, 0) == "a"
    keys = {"a": 0, "b": ROTATE_S}
    assert signing.current(keys, ROTATE_S + PUBLISHED_S - 1) == "a"
    assert signing.current(keys, ROTATE_S + PUBLISHED_S) == "b"


def test_a_key_stays_until_its_last_token_has_expired() -> None:
    keys = {"a": 0.0, "b": ROTATE_S}
    signs_from = ROTATE_S + PUBLISHED_S
    assert signing.over(keys, signs_from + KEPT_S - 1) == []
    assert signing.over(keys, signs_from + KEPT_S) == ["a"]


@given(st.lists(st.floats(1, 3 * ROTATE_S), min_size=1, max_size=60))
def test_over_the_years_every_token_can_be_verified_as_long_as_it_counts(steps: list[float]) -> None:
    now, keys, signed = 0.0, {}, list[tuple[str, float]]()
    for number, step in enumerate(steps):
        if signing.wanted(keys, now):
            keys[f"k{number}"] = now
        for kid in signing.over(keys, now):
            del keys[kid]
        signs = signing.current(keys, now)
        assert signs is not None
        signed = [(kid, until) for kid, until in signed if until > now] + [(signs, now + TOKEN_S)]
        assert all(kid in keys for kid, until in signed if until > now)
        assert len(keys) <= 3
        now += step
