"""What came of a request in one piece goes to its instance in one piece: each write is a system call, and wakes the instance."""

from typing import Any

import pytest

from deploy.bench_profile import ANSWER, HOST, Bench


class Wire:
    """A transport that keeps what is written, write by write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def is_closing(self) -> bool:
        return False


HEAD = f"POST /p HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000\r\n".encode()


@pytest.mark.parametrize("extra", [b"", b"X-New: %d\r\n"])
async def test_a_body_that_came_with_its_head_is_sent_with_it(extra: bytes) -> None:
    bench, body = Bench(), b"x" * 1000
    wire: Any = Wire()
    bench.upstream.transport = wire
    for number in range(4):
        bench.whole(HEAD + (extra % number if extra else b"") + b"\r\n" + body, ANSWER % (0, 0))
        (written,) = wire.writes
        assert written.startswith(b"POST /p HTTP/1.1\r\n")
        assert written.endswith(b"\r\n\r\n" + body)
        wire.writes.clear()


async def test_a_body_that_comes_later_is_sent_as_it_comes_and_what_follows_it_waits() -> None:
    bench, wire = Bench(), Wire()
    upstream: Any = bench.upstream
    upstream.transport = wire
    following = f"GET /next HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
    for data in (HEAD + b"\r\n" + b"a" * 400, b"b" * 500, b"c" * 100 + following):
        bench.client.data_received(data)
    assert [len(data) for data in wire.writes[1:]] == [500, 100]
    assert wire.writes[0].endswith(b"\r\n\r\n" + b"a" * 400)
    wire.writes.clear()
    bench.upstream.data_received(ANSWER % (0, 0))
    (written,) = wire.writes
    assert written.startswith(b"GET /next HTTP/1.1\r\n"), "its turn comes after the answer"
