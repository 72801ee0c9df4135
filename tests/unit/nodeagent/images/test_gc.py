"""Which images may go."""

from hypothesis import given
from hypothesis import strategies as st

from nodeagent.images.gc import Kept, choose

DAY = 86_400.0


def test_an_unused_image_goes_when_its_time_is_over() -> None:
    old, fresh = Kept("a@d1", "shop", "d1", 0), Kept("b@d2", "shop", "d2", DAY)
    assert choose([old, fresh], set(), DAY, DAY + 1) == [("a@d1", "shop")]


def test_a_used_image_stays_under_all_its_names() -> None:
    names = [Kept("a:v1", "", "d1", 0), Kept("a@d1", "shop", "d1", 0)]
    assert choose(names, {"other/host@d1"}, 0, DAY) == []
    assert choose(names, {"d1"}, 0, DAY) == []


def test_an_imported_image_stays() -> None:
    assert choose([Kept("a:v1", "", "d1", 0, imported=True)], set(), 0, DAY) == []


_kept = st.builds(
    Kept, st.text(max_size=3), st.sampled_from(["", "shop"]), st.sampled_from("abc"), st.floats(0, 100), st.booleans()
)


@given(st.lists(_kept), st.sets(st.sampled_from("abc")), st.floats(0, 100), st.floats(0, 200))
def test_nothing_in_use_or_young_is_ever_chosen(images: list[Kept], used: set[str], keep_s: float, now: float) -> None:
    gone = choose(images, used, keep_s, now)
    assert len(gone) == sum(i.digest not in used and not i.imported and now - i.last_used > keep_s for i in images)
