"""Trace context, and the bound on spans that wait."""

from hypothesis import given
from hypothesis import strategies as st

from ingress.headers import GOOD_TRACE
from ingress.spans import context

MADE = b"0" * 31 + b"1"


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8), st.integers(0, 255), st.floats(0, 1))
def test_the_header_passed_on_is_well_formed_and_of_the_same_trace(trace: bytes, span: bytes, flags: int, share: float) -> None:
    header = f"00-{trace.hex()}-{span.hex()}-{flags:02x}".encode()
    if GOOD_TRACE.fullmatch(header):
        found = context(header, MADE, MADE[16:], 0.5, share)
        assert found.sampled == bool(flags & 1)
        assert found.parent == span.hex().encode()
        assert found.header.split(b"-")[1] == trace.hex().encode()
        assert GOOD_TRACE.fullmatch(found.header)


@given(st.floats(0, 1), st.floats(0, 1, exclude_max=True))
def test_a_trace_begun_here_is_sampled_by_its_share(share: float, chance: float) -> None:
    found = context(b"", MADE, MADE[16:], chance, share)
    assert found.sampled == (chance < share)
    assert not found.parent
    assert GOOD_TRACE.fullmatch(found.header)
