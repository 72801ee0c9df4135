"""Sweeping idle connections to instances takes none that was made a moment ago for a request that has not got it yet."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from activator.balance import Target
from ingress import limits
from ingress.gate import Gate
from ingress.pool import Pool
from ingress.upstream import Upstream, close_idle
from ingress.upstream2 import Pool2, Upstream2


class Wire:
    """A transport that only remembers whether it was cut."""

    aborted = False

    def abort(self) -> None:
        self.aborted = True

    def set_write_buffer_limits(self, high: int) -> None: ...

    def write(self, data: bytes) -> None: ...

    def is_closing(self) -> bool:
        return self.aborted


@pytest.mark.parametrize("kind", ["http1", "h2c"])
async def test_a_connection_just_made_is_swept_only_when_it_has_been_idle_for_its_time(kind: str) -> None:
    gate = cast(Gate, SimpleNamespace(now=lambda: 100.0, upstreams=set()))
    target, sock = cast(Target, SimpleNamespace(instance="i1")), cast(Any, None)
    wire = Wire()
    made = Upstream(gate, target, Pool(), sock) if kind == "http1" else Upstream2(gate, target, Pool2(), sock)
    made.connection_made(cast(asyncio.Transport, wire))
    assert gate.upstreams == {made}
    close_idle(gate, 100.5)
    assert not wire.aborted
    close_idle(gate, 101 + limits.UPSTREAM_IDLE_S + limits.HELLO_TIME_S + limits.UPSTREAM2_IDLE_S)
    assert wire.aborted
