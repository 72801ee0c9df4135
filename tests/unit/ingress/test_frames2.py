"""Frames are counted, header blocks bounded, GOAWAY taken out, wherever the bytes are cut."""

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from ingress.frames2 import BUDGET, REFILL_PER_S, RESET_COST, Flood, FrameCounter

ORDINARY: list[Frame] = [
    SettingsFrame(0),
    HeadersFrame(1, b"x" * 50, flags=["END_HEADERS"]),
    DataFrame(1, b"hello"),
    DataFrame(1, b"", flags=["END_STREAM"]),
    PingFrame(0, b"12345678"),
    WindowUpdateFrame(0, window_increment=9),
    RstStreamFrame(1, error_code=8),
]
AWAY = GoAwayFrame(0, last_stream_id=7, error_code=2, additional_data=b"so long")


@given(st.lists(st.sampled_from([*ORDINARY, AWAY]), max_size=20), st.lists(st.integers(1, 40), max_size=60))
def test_everything_but_goaway_passes_unchanged_however_it_is_cut(frames: list[Frame], cuts: list[int]) -> None:
    data = b"".join(frame.serialize() for frame in frames)
    counter = FrameCounter(0)
    passed = b""
    for cut in [*cuts, len(data)]:
        passed += counter.feed(data[:cut], 0)
        data = data[cut:]
    assert passed == b"".join(frame.serialize() for frame in frames if frame is not AWAY)
    assert counter.goaway == ((7, 2) if AWAY in frames else None)


def test_the_preface_is_no_frame() -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    assert FrameCounter(0, 24).feed(preface + SettingsFrame(0).serialize(), 0) == preface + SettingsFrame(0).serialize()


@pytest.mark.parametrize("frame", [PingFrame(0, b"12345678"), SettingsFrame(0), DataFrame(1), GoAwayFrame(0)])
def test_the_budget_is_spent_refilled_by_time_and_earned_by_what_we_send(frame: Frame) -> None:
    counter = FrameCounter(0)
    one = frame.serialize()
    counter.feed(one * int(BUDGET), 0)
    with pytest.raises(Flood):
        counter.feed(one, 0)
    counter = FrameCounter(0)
    counter.feed(one * int(BUDGET), 0)
    counter.feed(one * int(REFILL_PER_S), 1)
    counter.earn(5)
    counter.feed(one * 5, 1)
    with pytest.raises(Flood):
        counter.feed(one, 1)


def test_resets_cost_more() -> None:
    counter = FrameCounter(0)
    counter.feed(RstStreamFrame(1).serialize() * int(BUDGET / RESET_COST), 0)
    with pytest.raises(Flood):
        counter.feed(RstStreamFrame(1).serialize(), 0)


def test_a_header_block_is_bounded_however_many_frames_it_has() -> None:
    counter = FrameCounter(0)
    counter.feed(HeadersFrame(1, bytes(16000)).serialize(), 0)
    for _ in range(3):
        counter.feed(ContinuationFrame(1, bytes(16000)).serialize(), 0)
    with pytest.raises(Flood):
        counter.feed(ContinuationFrame(1, bytes(16000)).serialize(), 0)


def test_blocks_are_bounded_one_by_one() -> None:
    counter = FrameCounter(0)
    for _ in range(50):
        counter.feed(HeadersFrame(1, bytes(16000), flags=["END_HEADERS"]).serialize(), 0)


def test_data_that_ends_a_stream_and_data_with_something_in_it_are_free() -> None:
    counter = FrameCounter(0)
    counter.feed((DataFrame(1, b"", flags=["END_STREAM"]).serialize() + DataFrame(1, b"x").serialize()) * 3000, 0)
