"""Frame boundaries."""

from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from ingress.websocket import GOING_AWAY, GOING_AWAY_MASKED, Frames


def frame(size: int, mask: bool) -> bytes:
    return Frame(Opcode.BINARY, b"x" * size).serialize(mask=mask)


@given(st.lists(st.tuples(st.sampled_from([0, 1, 125, 126, 127, 65_535, 65_536]), st.booleans()), max_size=5), st.data())
def test_boundaries_are_found_however_the_bytes_are_cut(sizes: list[tuple[int, bool]], data: st.DataObject) -> None:
    raw = [frame(size, mask) for size, mask in sizes]
    whole = b"".join(raw)
    ends = {0} | {sum(map(len, raw[: place + 1])) for place in range(len(raw))}
    cuts = sorted({*data.draw(st.lists(st.integers(0, len(whole)), max_size=8)), len(whole), *ends})
    frames, at = Frames(), 0
    for cut in cuts:
        frames.feed(whole[at:cut])
        at = cut
        assert frames.between == (at in ends)


def test_the_close_frames_are_what_the_protocol_wants() -> None:
    assert Frame(Opcode.CLOSE, b"\x03\xe9").serialize(mask=False) == GOING_AWAY
    assert GOING_AWAY_MASKED[:2] == b"\x88\x82"
    assert GOING_AWAY_MASKED[6:] == b"\x03\xe9"
