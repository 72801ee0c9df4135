"""Frames in and out: the same however the bytes are cut, floods run into a budget, header blocks are bounded, nothing else escapes."""

from typing import Any

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from ingress.frames2 import BUDGET, FLOW_CONTROL_ERROR, REFILL_PER_S, RESET_COST, BadFrame, BadStream, Flood
from ingress.hpack2 import Field
from ingress.speaker2 import PREFACE, WireLane
from ingress.wire2 import Wire

BLOCK = b"\x82\x86\x84\x41\x01a"
ORDINARY: list[Frame] = [
    HeadersFrame(1, BLOCK, flags=["END_HEADERS"]),
    HeadersFrame(3, BLOCK, flags=["END_HEADERS", "END_STREAM"]),
    DataFrame(1, b"hello"),
    DataFrame(1, b"", flags=["END_STREAM"]),
    PingFrame(0, b"12345678"),
    PriorityFrame(1, depends_on=5),
    WindowUpdateFrame(0, window_increment=9),
    WindowUpdateFrame(1, window_increment=9),
    RstStreamFrame(1, error_code=8),
    GoAwayFrame(0, last_stream_id=7, error_code=2, additional_data=b"so long"),
]


class Server(Wire):
    """Notes what it hears, and keeps a lane for each stream."""

    def __init__(self) -> None:
        super().__init__(0, client_side=False)
        self.heard: list[Any] = []
        self.begin(65_535, 2**20, {})
        self.take()

    def on_request(self, id: int, head: list[Field], ended: bool) -> None:
        lane = WireLane(id)
        lane.open_in = not ended
        self.enter(lane)
        self.heard.append(("request", id, head, ended))

    def on_data(self, lane: WireLane, data: bytes, size: int, ended: bool) -> None:
        self.took(lane, size)
        self.heard.append(("data", lane.id, data, ended))

    def on_trailers(self, lane: WireLane, head: list[Field]) -> None:
        self.heard.append(("trailers", lane.id, head))

    def on_reset(self, lane: WireLane, code: int) -> None:
        self.heard.append(("reset", lane.id, code))
        del self.lanes[lane.id]

    def on_fault(self, lane: WireLane, fault: BadStream) -> None:
        self.heard.append(("fault", lane.id, fault.code))
        del self.lanes[lane.id]
        self.send_reset(lane.id, fault.code)

    def on_goaway(self, last: int, code: int) -> None:
        self.heard.append(("goaway", last, code))


def greeted() -> Server:
    server = Server()
    server.receive(PREFACE + SettingsFrame(0).serialize(), 0)
    server.take()
    return server


def told(server: Server, data: bytes, now: float = 0) -> Any:
    """How taking `data` in ended."""
    try:
        server.receive(data, now)
    except (BadFrame, Flood) as error:
        return type(error), str(error)
    return None


@given(st.lists(st.sampled_from(ORDINARY), max_size=20), st.lists(st.integers(1, 40), max_size=60))
def test_frames_are_heard_alike_however_they_are_cut(frames: list[Frame], cuts: list[int]) -> None:
    data = b"".join(frame.serialize() for frame in frames)
    whole, pieces = greeted(), greeted()
    end = told(whole, data)
    for cut in [*cuts, len(data)]:
        ended = told(pieces, data[:cut])
        data = data[cut:]
        if ended:
            break
    assert (pieces.heard, pieces.take(), ended) == (whole.heard, whole.take(), end)


@given(st.lists(st.binary(max_size=60), max_size=6), st.booleans())
def test_any_bytes_are_taken_or_refused(pieces: list[bytes], at_the_beginning: bool) -> None:
    server = Server() if at_the_beginning else greeted()
    for piece in pieces:
        if told(server, piece):
            return


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 255), st.integers(0, 9), st.binary(max_size=12)), max_size=12))
def test_any_frames_are_taken_or_refused(frames: list[tuple[int, int, int, bytes]]) -> None:
    server = greeted()
    for kind, flags, id, payload in frames:
        data = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + id.to_bytes(4, "big") + payload
        if told(server, data):
            return


PINGS = PingFrame(0, b"12345678").serialize()


@pytest.mark.parametrize(
    "frame", [PingFrame(0, b"12345678"), SettingsFrame(0), DataFrame(1), GoAwayFrame(0), PriorityFrame(1, depends_on=3)]
)
def test_the_budget_is_spent_refilled_by_time_and_earned_by_what_we_send(frame: Frame) -> None:
    opened, one = HeadersFrame(1, BLOCK, flags=["END_HEADERS"]).serialize(), frame.serialize()
    server = greeted()
    server.receive(opened + one * int(BUDGET - 1), 0)
    with pytest.raises(Flood):
        server.receive(one, 0)
    server = greeted()
    server.receive(opened + one * int(BUDGET - 1), 0)
    server.receive(one * int(REFILL_PER_S), 1)
    server.budget.earn(5)
    server.receive(one * 5, 1)
    with pytest.raises(Flood):
        server.receive(one, 1)


def test_resets_cost_more() -> None:
    server = greeted()
    opened = HeadersFrame(1, BLOCK, flags=["END_HEADERS"]).serialize()
    one = RstStreamFrame(1).serialize()
    server.receive(opened + one * int((BUDGET - 1) / RESET_COST), 0)
    with pytest.raises(Flood):
        server.receive(one, 0)


def test_a_header_block_is_bounded_however_many_frames_it_has() -> None:
    server = greeted()
    server.receive(HeadersFrame(1, bytes(16000)).serialize(), 0)
    for _ in range(3):
        server.receive(ContinuationFrame(1, bytes(16000)).serialize(), 0)
    with pytest.raises(Flood):
        server.receive(ContinuationFrame(1, bytes(16000)).serialize(), 0)


def test_data_that_ends_a_stream_and_data_with_something_in_it_are_free() -> None:
    server = greeted()
    for id in range(1, 6001, 2):
        frames: list[Frame] = [
            HeadersFrame(id, BLOCK, flags=["END_HEADERS"]),
            DataFrame(id, b"x"),
            DataFrame(id, b"", flags=["END_STREAM"]),
        ]
        server.receive(b"".join(frame.serialize() for frame in frames), 0)
        del server.lanes[id]


def test_what_was_on_the_way_to_a_stream_that_we_reset_is_let_pass_and_given_back() -> None:
    server = greeted()
    server.receive(HeadersFrame(1, BLOCK, flags=["END_HEADERS"]).serialize(), 0)
    del server.lanes[1]
    server.send_reset(1, 8)
    server.take()
    trailers = HeadersFrame(1, b"\x00\x01a\x01b", flags=["END_HEADERS", "END_STREAM"]).serialize()
    for _ in range(40):
        server.receive(DataFrame(1, bytes(16_000)).serialize(), 0)
    server.receive(trailers, 0)
    assert [kind for kind, *_ in server.heard] == ["request"]
    assert WindowUpdateFrame.type in server.take()[3::13], "the connection's window is filled up again"


class Reluctant(Server):
    """Never takes in what it hears."""

    def took(self, lane: WireLane | None, size: int) -> None: ...


def test_more_than_a_streams_window_ends_the_stream_and_more_than_the_connections_ends_that() -> None:
    server = Reluctant()
    server.receive(PREFACE + SettingsFrame(0).serialize(), 0)
    for id in (1, 3):
        server.receive(HeadersFrame(id, BLOCK, flags=["END_HEADERS"]).serialize(), 0)
    for _ in range(4):
        server.receive(DataFrame(1, bytes(16_384)).serialize(), 0)
    assert server.heard[-1] == ("fault", 1, FLOW_CONTROL_ERROR)
    assert 3 in server.lanes
    for id in range(5, 5 + 2 * 59, 2):
        server.receive(HeadersFrame(id, BLOCK, flags=["END_HEADERS"]).serialize() + DataFrame(id, bytes(16_384)).serialize(), 0)
        del server.lanes[id]
    server.receive(HeadersFrame(201, BLOCK, flags=["END_HEADERS"]).serialize(), 0)
    with pytest.raises(BadFrame, match="connection's window"):
        server.receive(DataFrame(201, bytes(16_384)).serialize() * 2, 0)
