"""A client of HTTP/2 that says any frames, and what the front door answers."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from hpack import Decoder

from ingress.speaker2 import PREFACE
from tests.integration.ingress.door import HOST

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED, PRIORITISED, ACK = 0x1, 0x4, 0x8, 0x20, 0x1
NO_ERROR, PROTOCOL, INTERNAL, FLOW_CONTROL, TIMEOUT, STREAM_CLOSED, FRAME_SIZE, REFUSED, CANCEL, COMPRESSION = range(10)
CALM = 11
Pairs = list[tuple[str, str]]


# -- what is sent ---------------------------------------------------------------------------------------------------------------


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def pseudo(method: str = "GET", path: str = "/") -> Pairs:
    return [(":method", method), (":scheme", "http"), (":path", path), (":authority", HOST)]


def literal(pairs: Pairs) -> bytes:
    """`pairs` as literals that leave no trace in any table: the decoder's state stays what it is."""
    block = b""
    for name, value in pairs:
        block += b"\x00" + _string(name) + _string(value)
    return block


def _string(text: str) -> bytes:
    data = text.encode("latin-1")
    if len(data) < 127:
        return bytes((len(data),)) + data
    rest, head = len(data) - 127, b"\x7f"
    while rest > 127:
        head += bytes((rest % 128 + 128,))
        rest //= 128
    return head + bytes((rest,)) + data


def head(pairs: Pairs, stream: int = 1, flags: int = END_STREAM | END_HEADERS) -> bytes:
    return frame(HEADERS, flags, stream, literal(pairs))


def block(data: bytes) -> bytes:
    """A request whose header block ends with the bytes `data`."""
    return frame(HEADERS, END_STREAM | END_HEADERS, 1, literal(pseudo()) + data)


def setting(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(code.to_bytes(2, "big") + value.to_bytes(4, "big") for code, value in pairs))


def window(size: int, stream: int = 0) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, size.to_bytes(4, "big"))


GET = head(pseudo())
OPEN = head(pseudo("POST"), flags=END_HEADERS)
"""A request whose body is still to come."""
HELD = head(pseudo("POST", "/hold"), flags=END_HEADERS)
PROBE = frame(PING, 0, 0, b"are-you?")
CUT = literal(pseudo())
TEST = b"\x00\x85\xf2\xb2\x4a\x84\xff"
"""A literal field whose name is `x-test`, huffman-coded; its value is still to come."""
RESET = frame(RST_STREAM, 0, 1, CANCEL.to_bytes(4, "big"))


# -- what is heard --------------------------------------------------------------------------------------------------------------


@dataclass
class Heard:
    """Frames of the front door until it closed, or answered the probe."""

    goaway: int | None = None
    resets: dict[int, int] = field(default_factory=dict)
    heads: dict[int, dict[str, str]] = field(default_factory=dict)
    bodies: dict[int, bytes] = field(default_factory=dict)
    acks: int = 0
    pongs: Iterable[bytes] = ()
    first: int = -1
    closed: bool = False


async def converse(port: int, data: bytes, until: str, then: bytes = b"") -> Heard:
    """What comes back for the preface, SETTINGS and `data`. `until`: closed, reset, answer, pong or body; for that the second time
    when `then` is said after the first."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(PREFACE + setting() + data)
    heard = Heard()
    decoder = Decoder()
    try:
        async with asyncio.timeout(5):
            while True:
                try:
                    front = await reader.readexactly(9)
                    payload = await reader.readexactly(int.from_bytes(front[:3], "big"))
                except (asyncio.IncompleteReadError, ConnectionResetError):
                    heard.closed = True
                    return heard
                _take_in(heard, decoder, front[3], front[4], int.from_bytes(front[5:9], "big"), payload)
                done = {
                    "pong": b"are-you?" in heard.pongs,
                    "reset": heard.resets,
                    "answer": any(h[":status"] >= "200" for h in heard.heads.values()),
                    "body": any(heard.bodies.values()),
                    "closed": False,
                }
                if done[until] and then:
                    writer.write(then)
                    heard.bodies, then = {}, b""
                elif done[until]:
                    return heard
    except TimeoutError:
        return heard
    finally:
        writer.transport.abort()


def _take_in(heard: Heard, decoder: Decoder, kind: int, flags: int, stream: int, payload: bytes) -> None:
    if heard.first < 0:
        heard.first = kind
    if kind == GOAWAY:
        heard.goaway = int.from_bytes(payload[4:8], "big")
    elif kind == RST_STREAM:
        heard.resets[stream] = int.from_bytes(payload, "big")
    elif kind == HEADERS:
        heard.heads[stream] = dict(decoder.decode(payload))
    elif kind == DATA:
        heard.bodies[stream] = heard.bodies.get(stream, b"") + payload
    elif kind == SETTINGS and flags & ACK:
        heard.acks += 1
    elif kind == PING and flags & ACK:
        heard.pongs = [*heard.pongs, payload]
