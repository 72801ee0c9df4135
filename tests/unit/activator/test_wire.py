"""Words come out as they went in, however the stream is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activator.wire import Ask, Cancel, Grant, Held, Hello, Holding, MyView, Recall, Return, Unpacker, Word, pack

HELD = Held("p/r", 5, "i1", "n", "10.0.0.1:80", 2)
WORDS: list[Word] = [
    Hello("a", "m", "/run/a.sock"), MyView(3, 4, ("a", "b"), ("b",)), Holding(3, (HELD,)), Ask("p/r", 5, 7, 0.5, 300.0),
    Cancel("p/r", 7), Grant(7, HELD, True), Recall("p/r"), Return("p/r", "i1", 1),
]  # fmt: skip


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_words_survive_any_cut(cuts: list[int]) -> None:
    data = b"".join(pack(word) for word in WORDS)
    unpacker, found = Unpacker(), []
    for cut in [*cuts, len(data)]:
        piece, data = data[:cut], data[cut:]
        found += unpacker.feed(piece)
    assert found == WORDS


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x01\x00"])
def test_what_no_worker_says_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        Unpacker().feed(data)
