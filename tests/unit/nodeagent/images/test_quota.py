"""What a project may hold of images."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.images.errors import OverQuota
from nodeagent.images.quota import Quota, choose, total

BASE, ONE, TWO = {"base": 50}, {"base": 50, "one": 10}, {"base": 50, "two": 20}


def test_a_layer_that_two_images_share_counts_once() -> None:
    assert total([ONE, TWO]) == 80
    assert choose({"1": ONE}, [], TWO, 80) == []


def test_no_more_goes_than_must_and_in_order() -> None:
    has = {"1": ONE, "2": {"x": 30}, "3": {"y": 30}}
    assert choose(has, ["2", "3"], {"z": 30}, 130) == ["2"]
    assert choose(has, ["3", "2"], {"z": 60}, 130) == ["3", "2"]


def test_nothing_goes_where_all_of_it_would_not_be_enough() -> None:
    assert choose({"1": ONE, "2": {"x": 30}}, ["2"], {"z": 60}, 100) is None


def test_what_refuses_says_the_limit_what_there_is_and_the_cure() -> None:
    quota = Quota(lambda project: 70)
    with pytest.raises(OverQuota) as refused:
        quota.take("shop", "sha256:2", TWO, {"1": ONE}, [])
    for said in ("project shop", "70 bytes", "image_bytes", "has 60", "is 70", "ebb image delete", "--quota image_bytes="):
        assert said in refused.value.message
    assert refused.value.reason == "QuotaExceeded"


def test_of_two_on_their_way_at_once_one_is_refused_until_the_other_is_done() -> None:
    quota = Quota(lambda project: 70)
    assert quota.take("shop", "1", ONE, {}, []) == []
    with pytest.raises(OverQuota):
        quota.take("shop", "2", TWO, {}, [])
    assert quota.take("other", "2", TWO, {}, []) == []
    assert quota.take("shop", "1", ONE, {}, []) == []
    quota.done("shop", "1")
    assert quota.take("shop", "2", TWO, {}, []) == []


def test_only_a_project_that_was_given_a_limit_has_one() -> None:
    quota = Quota({"shop": 70}.get)  # type: ignore[arg-type]
    assert quota.limits("shop")
    assert not Quota(lambda project: 0).limits("shop")
    assert not Quota(lambda project: 70).limits("")


_layers = st.dictionaries(st.sampled_from("abcdef"), st.just(10), max_size=4)


@given(
    st.dictionaries(st.sampled_from("123"), _layers), st.lists(st.sampled_from("123"), unique=True), _layers, st.integers(0, 70)
)
def test_after_it_the_project_is_within_its_limit(
    has: dict[str, dict[str, int]], idle: list[str], coming: dict[str, int], most: int
) -> None:
    gone = choose(has, idle, coming, most)
    if gone is None:
        assert total([*(layers for image, layers in has.items() if image not in idle), coming]) > most
    else:
        assert total([*(layers for image, layers in has.items() if image not in gone), coming]) <= most
        assert set(gone) <= set(idle)
