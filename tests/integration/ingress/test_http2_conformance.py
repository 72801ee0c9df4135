"""RFC 9113 and RFC 7541, a row a rule: what a client sends after its preface, and what the front door answers.

A rule about one stream may be answered on the stream or by the end of the connection, with the code of the rule; one about the
connection ends that. What is legal, or to be ignored, leaves a connection that answers a PING or a request.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hpack import Encoder

from tests.integration.ingress.door import HOST, Door, instance, open_door, read_head
from tests.integration.ingress.http2_frames import (
    ACK,
    CALM,
    COMPRESSION,
    CONTINUATION,
    CUT,
    DATA,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL,
    FRAME_SIZE,
    GET,
    GOAWAY,
    HEADERS,
    HELD,
    OPEN,
    PADDED,
    PING,
    PRIORITISED,
    PRIORITY,
    PROBE,
    PROTOCOL,
    PUSH_PROMISE,
    REFUSED,
    RESET,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    TEST,
    WINDOW_UPDATE,
    Pairs,
    block,
    converse,
    frame,
    head,
    pseudo,
    setting,
    window,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door() -> AsyncIterator[Door]:
    async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """200 with 9 bytes to each request; one for /hold is never answered."""
        while line := await read_head(reader):
            if b" /hold " in line:
                await reader.read()
                return
            if b"transfer-encoding: chunked" in line.lower():
                await reader.readuntil(b"0\r\n\r\n") if b"/trailed" not in line else await reader.readuntil(b"x-sum: 1\r\n\r\n")
            body = b"" if line.startswith(b"HEAD") else b"nine byte"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + body)

    async with open_door() as made, instance(answering) as port:
        await made.route()
        await made.ready("i1", port)
        yield made


# -- legal, or to be ignored ------------------------------------------------------------------------------------------------------

LEGAL = {
    "3.4 a preface and empty SETTINGS": b"",
    "4.1 a frame of unknown kind": frame(0xFE, 0xFF, 0, b"whatever"),
    "4.1 a frame of unknown kind on a stream that is none": frame(0xFE, 0, 77, b"whatever"),
    "4.1 undefined flags": frame(PING, 0xFE & ~ACK, 0, b"flagged!"),
    "4.1 the reserved bit of a stream id": frame(PING, 0, 1 << 31, b"reserved"),
    "5.1 PRIORITY on an idle stream": frame(PRIORITY, 0, 3, b"\0\0\0\1\x10"),
    "5.1 PRIORITY on a closed stream": OPEN + RESET + frame(PRIORITY, 0, 1, b"\0\0\0\0\x10"),
    "5.1 WINDOW_UPDATE on a stream that we closed": GET + window(1, 1),
    "5.1 RST_STREAM on a stream that we closed": GET + RESET,
    "6.4 RST_STREAM with an unknown code": OPEN + frame(RST_STREAM, 0, 1, b"\xff\0\0\xff"),
    "6.5 SETTINGS that nobody knows": setting((0xFF, 1), (0x1234, 2)),
    "6.5 an acknowledgement nobody waits for": frame(SETTINGS, ACK),
    "6.5.2 ENABLE_PUSH 0": setting((2, 0)),
    "6.5.2 ENABLE_PUSH 1": setting((2, 1)),
    "6.5.2 the largest frame size": setting((5, 2**24 - 1)),
    "6.5.2 the largest window": setting((4, 2**31 - 1)),
    "6.5.2 no header table": setting((1, 0)),
    "6.7 PING answers that nobody asked for": frame(PING, ACK, 0, b"nobody's"),
    "6.9 a connection window up to its edge": window(2**31 - 1 - 65_535),
    "6.9 a stream window up to its edge": OPEN + window(2**31 - 1 - 65_535, 1),
    "6.9 WINDOW_UPDATE on a stream that was reset": OPEN + RESET + window(1, 1),
}  # fmt: skip

ANSWERED = {
    "8.1 GET": GET,
    "8.1 HEAD": head(pseudo("HEAD")),
    "8.1 OPTIONS *": head(pseudo("OPTIONS", "*")),
    "8.1 POST with DATA": OPEN + frame(DATA, END_STREAM, 1, b"hello"),
    "8.1 POST without DATA": head(pseudo("POST")),
    "8.1 POST whose end is an empty DATA": OPEN + frame(DATA, 0, 1, b"hello") + frame(DATA, END_STREAM, 1),
    "8.1 trailers": head(pseudo("POST", "/trailed"), flags=END_HEADERS) + frame(DATA, 0, 1, b"a") + head([("x-sum", "1")]),
    "8.1 a content-length that fits": head([*pseudo("POST"), ("content-length", "5")], flags=END_HEADERS)
    + frame(DATA, 0, 1, b"he") + frame(DATA, END_STREAM, 1, b"llo"),
    "8.2.2 te: trailers": head([*pseudo(), ("te", "trailers")]),
    "8.2.3 cookies in crumbs": head([*pseudo(), ("cookie", "a=1"), ("cookie", "b=2")]),
    "8.3.1 the scheme https": head([*pseudo()[:1], (":scheme", "https"), *pseudo()[2:]]),
    "8.3.1 Host instead of :authority": head([*pseudo()[:3], ("host", HOST)]),
    "4.2 DATA of the largest size": OPEN + frame(DATA, END_STREAM, 1, bytes(16_384)),
    "6.1 padded DATA": OPEN + frame(DATA, END_STREAM | PADDED, 1, b"\x03hello\0\0\0"),
    "6.1 DATA that is all padding": OPEN + frame(DATA, END_STREAM | PADDED, 1, b"\x03\0\0\0"),
    "6.2 padded HEADERS": frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, b"\x02" + CUT + b"\0\0"),
    "6.2 HEADERS with a priority": frame(HEADERS, END_STREAM | END_HEADERS | PRIORITISED, 1, b"\x80\0\0\0\xff" + CUT),
    "6.2 padded HEADERS with a priority":
        frame(HEADERS, END_STREAM | END_HEADERS | PRIORITISED | PADDED, 1, b"\1\0\0\0\0\x10" + CUT + b"\0"),
    "5.1.1 stream ids with gaps": head(pseudo(), stream=12_345),
    "6.5.3 of two window sizes the last counts": setting((4, 1), (4, 65_535)) + GET,
    "6.10 one CONTINUATION": frame(HEADERS, END_STREAM, 1, CUT[:20]) + frame(CONTINUATION, END_HEADERS, 1, CUT[20:]),
    "6.10 several CONTINUATIONs": frame(HEADERS, END_STREAM, 1, CUT[:9]) + frame(CONTINUATION, 0, 1, CUT[9:20])
    + frame(CONTINUATION, 0, 1) + frame(CONTINUATION, END_HEADERS, 1, CUT[20:]),
    "6.10 HEADERS without a byte of the block": frame(HEADERS, END_STREAM, 1) + frame(CONTINUATION, END_HEADERS, 1, CUT),
    "H 2.3 static, indexed and new names": frame(HEADERS, 5, 1, Encoder().encode([*pseudo(), ("x-new", "y")])),
    "H 4.2 a smaller table, at the block's beginning": frame(HEADERS, 5, 1, b"\x20" + CUT),
    "H 4.2 two updates of the table's size": frame(HEADERS, 5, 1, b"\x20\x3f\xe1\x1f" + CUT),
    "H 5.2 huffman-coded strings": frame(HEADERS, 5, 1, Encoder().encode(pseudo(), huffman=True)),
    "H 6.2.3 a field that is never indexed": block(b"\x10\x01a\x01b"),
}  # fmt: skip


@pytest.mark.parametrize("data", LEGAL.values(), ids=LEGAL)
async def test_what_is_legal_or_unknown_does_no_harm(door: Door, data: bytes) -> None:
    heard = await converse(door.port, data + PROBE, "pong")
    assert heard.first == SETTINGS, "the server's preface comes first"
    assert heard.goaway is None, heard
    assert b"are-you?" in heard.pongs, heard
    assert heard.acks == 1 + (data[3] == SETTINGS and not data[4] & ACK if data else 0)
    assert all(pong in (b"are-you?", b"flagged!", b"reserved") for pong in heard.pongs)


@pytest.mark.parametrize("data", ANSWERED.values(), ids=ANSWERED)
async def test_what_is_a_request_is_answered(door: Door, data: bytes) -> None:
    heard = await converse(door.port, data, "answer")
    assert heard.goaway is None, heard
    assert [each[":status"] for each in heard.heads.values()] == ["200"], heard


# -- errors -----------------------------------------------------------------------------------------------------------------------

CONNECTION = {
    "4.2 HEADERS above the largest size": (frame(HEADERS, 5, 1, bytes(16_385)), FRAME_SIZE),
    "4.2 SETTINGS above the largest size": (frame(SETTINGS, 0, 0, bytes(16_386)), FRAME_SIZE),
    "4.3 a block that is no HPACK": (frame(HEADERS, 5, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), COMPRESSION),
    "4.3 PRIORITY within a block": (frame(HEADERS, 1, 1, CUT) + frame(PRIORITY, 0, 1, b"\0\0\0\0\x10"), PROTOCOL),
    "4.3 HEADERS of another stream within a block": (frame(HEADERS, 1, 1, CUT) + head(pseudo(), 3), PROTOCOL),
    "5.1 DATA on an idle stream": (frame(DATA, END_STREAM, 1, b"x"), PROTOCOL),
    "5.1 RST_STREAM on an idle stream": (RESET, PROTOCOL),
    "5.1 WINDOW_UPDATE on an idle stream": (window(1, 1), PROTOCOL),
    "5.1 CONTINUATION on an idle stream": (frame(CONTINUATION, END_HEADERS, 1, CUT), PROTOCOL),
    "5.1.1 an even stream id": (head(pseudo(), 2), PROTOCOL),
    "5.5 an unknown frame within a block": (frame(HEADERS, 1, 1, CUT) + frame(0xFE, 0, 1), PROTOCOL),
    "6.1 DATA on stream 0": (frame(DATA, END_STREAM, 0, b"x"), PROTOCOL),
    "6.1 padding longer than DATA": (OPEN + frame(DATA, END_STREAM | PADDED, 1, b"\x09hello"), PROTOCOL),
    "6.2 HEADERS on stream 0": (head(pseudo(), 0), PROTOCOL),
    "6.2 padding longer than HEADERS": (frame(HEADERS, 5 | PADDED, 1, b"\xff" + CUT), PROTOCOL),
    "6.3 PRIORITY on stream 0": (frame(PRIORITY, 0, 0, b"\0\0\0\1\x10"), PROTOCOL),
    "6.4 RST_STREAM on stream 0": (frame(RST_STREAM, 0, 0, bytes(4)), PROTOCOL),
    "6.4 RST_STREAM of three bytes": (OPEN + frame(RST_STREAM, 0, 1, bytes(3)), FRAME_SIZE),
    "6.4 RST_STREAM of five bytes": (OPEN + frame(RST_STREAM, 0, 1, bytes(5)), FRAME_SIZE),
    "6.5 an acknowledgement with a payload": (frame(SETTINGS, ACK, 0, bytes(6)), FRAME_SIZE),
    "6.5 SETTINGS on a stream": (frame(SETTINGS, 0, 1), PROTOCOL),
    "6.5 SETTINGS of five bytes": (frame(SETTINGS, 0, 0, bytes(5)), FRAME_SIZE),
    "6.5.2 ENABLE_PUSH 2": (setting((2, 2)), PROTOCOL),
    "6.5.2 a window above 2^31-1": (setting((4, 2**31)), FLOW_CONTROL),
    "6.5.2 a frame size below 2^14": (setting((5, 2**14 - 1)), PROTOCOL),
    "6.5.2 a frame size above 2^24-1": (setting((5, 2**24)), PROTOCOL),
    "6.6 PUSH_PROMISE of a client": (GET + frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + CUT), PROTOCOL),
    "6.7 PING on a stream": (frame(PING, 0, 1, bytes(8)), PROTOCOL),
    "6.7 PING of seven bytes": (frame(PING, 0, 0, bytes(7)), FRAME_SIZE),
    "6.7 PING of nine bytes": (frame(PING, 0, 0, bytes(9)), FRAME_SIZE),
    "6.8 GOAWAY on a stream": (frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL),
    "6.8 GOAWAY of seven bytes": (frame(GOAWAY, 0, 0, bytes(7)), FRAME_SIZE),
    "6.9 a window that grows by nothing": (window(0), PROTOCOL),
    "6.9 WINDOW_UPDATE of three bytes": (frame(WINDOW_UPDATE, 0, 0, bytes(3)), FRAME_SIZE),
    "6.9.1 a connection window above 2^31-1": (window(2**31 - 1) + window(1), FLOW_CONTROL),
    "6.9.2 a window that settings make overflow": (HELD + window(2**31 - 1 - 65_535, 1) + setting((4, 65_536)), FLOW_CONTROL),
    "6.10 DATA within a block": (frame(HEADERS, 0, 1, CUT) + frame(DATA, END_STREAM, 1, b"x"), PROTOCOL),
    "6.10 CONTINUATION on stream 0": (frame(HEADERS, 1, 1, CUT) + frame(CONTINUATION, END_HEADERS, 0), PROTOCOL),
    "6.10 CONTINUATION of another stream": (frame(HEADERS, 1, 1, CUT) + frame(CONTINUATION, END_HEADERS, 3), PROTOCOL),
    "6.10 CONTINUATION after the block's end": (OPEN + frame(CONTINUATION, END_HEADERS, 1, CUT), PROTOCOL),
    "6.10 CONTINUATION after the last CONTINUATION": (
        frame(HEADERS, 0, 1, CUT) + frame(CONTINUATION, END_HEADERS, 1) + frame(CONTINUATION, END_HEADERS, 1), PROTOCOL),
    "6.10 CONTINUATION after DATA": (OPEN + frame(DATA, 0, 1, b"x") + frame(CONTINUATION, END_HEADERS, 1, CUT), PROTOCOL),
    "H 2.3.3 an index beyond both tables": (block(b"\xfe"), COMPRESSION),
    "H 2.3.3 a name's index beyond both tables": (block(b"\x7e\x01a"), COMPRESSION),
    "H 4.2 an update of the table's size at the block's end": (block(b"\x20"), COMPRESSION),
    "H 5.1 an integer without an end": (block(b"\x7f" + b"\xff" * 20), COMPRESSION),
    "H 5.2 huffman padding longer than 7 bits": (block(TEST + b"\x84\x49\x50\x9f\xff"), COMPRESSION),
    "H 5.2 huffman padding of zeros": (block(TEST + b"\x83\x49\x50\x90"), COMPRESSION),
    "H 5.2 huffman with an end of string": (block(TEST + b"\x87\x49\x51\xff\xff\xff\xfa\x7f"), COMPRESSION),
    "H 5.2 a string longer than the block": (block(b"\x00\x05ab"), COMPRESSION),
    "H 6.1 index 0": (block(b"\x80"), COMPRESSION),
    "H 6.3 a table larger than allowed": (frame(HEADERS, 5, 1, b"\x3f\xe2\x1f" + CUT), COMPRESSION),
}  # fmt: skip


@pytest.mark.parametrize(("data", "code"), CONNECTION.values(), ids=CONNECTION)
async def test_an_error_of_the_connection_ends_it_with_its_code(door: Door, data: bytes, code: int) -> None:
    heard = await converse(door.port, data + PROBE, "closed")
    assert heard.closed, heard
    assert heard.goaway == code, heard


def without(name: str) -> Pairs:
    return [pair for pair in pseudo() if pair[0] != name]


def sized(length: str, *data: bytes) -> bytes:
    frames = [frame(DATA, 0 if n < len(data) - 1 else END_STREAM, 1, each) for n, each in enumerate(data)]
    return head([*pseudo("POST"), ("content-length", length)], flags=END_HEADERS) + b"".join(frames)


STREAM = {
    "4.2 DATA above the largest size": (OPEN + frame(DATA, END_STREAM, 1, bytes(16_385)), FRAME_SIZE),
    "5.1 DATA after the end": (head(pseudo("POST", "/hold")) + frame(DATA, END_STREAM, 1, b"x"), STREAM_CLOSED),
    "5.1 HEADERS after the end": (head(pseudo("POST", "/hold")) + head(pseudo()), STREAM_CLOSED),
    "5.1 DATA after a reset": (HELD + RESET + frame(DATA, END_STREAM, 1, b"x"), STREAM_CLOSED),
    "5.1 HEADERS after a reset": (HELD + RESET + head(pseudo()), STREAM_CLOSED),
    "5.1.1 a stream id below the last": (head(pseudo("POST", "/hold"), 5) + head(pseudo(), 3), PROTOCOL),
    "6.3 a priority that depends on itself": (HELD + frame(PRIORITY, 0, 1, b"\0\0\0\1\x10"), PROTOCOL),
    "6.3 PRIORITY of four bytes": (OPEN + frame(PRIORITY, 0, 1, bytes(4)), FRAME_SIZE),
    "6.9 a stream's window that grows by nothing": (HELD + window(0, 1), PROTOCOL),
    "6.9.1 a stream's window above 2^31-1": (HELD + window(2**31 - 1, 1), FLOW_CONTROL),
    "8.1 HEADERS after HEADERS that do not end the stream": (HELD + head([("x-a", "1")], flags=END_HEADERS), PROTOCOL),
    "8.1 pseudo-fields in trailers": (HELD + head([(":method", "GET")]), PROTOCOL),
    "8.1.1 less than content-length": (sized("9", b"hello"), PROTOCOL),
    "8.1.1 more than content-length": (sized("3", b"hello"), PROTOCOL),
    "8.1.1 more than content-length, in pieces": (sized("3", b"he", b"llo"), PROTOCOL),
    "8.1.1 content-length and no DATA": (head([*pseudo("POST"), ("content-length", "1")]), PROTOCOL),
    "8.1.1 two content-lengths": (head([*pseudo(), ("content-length", "0"), ("content-length", "0")]), PROTOCOL),
    "8.1.1 a content-length that is none": (head([*pseudo(), ("content-length", "-0")]), PROTOCOL),
    "8.2 a name in capitals": (head([*pseudo(), ("X-Test", "1")]), PROTOCOL),
    "8.2 a name with a space": (head([*pseudo(), ("x test", "1")]), PROTOCOL),
    "8.2 a name with a colon": (head([*pseudo(), ("x:test", "1")]), PROTOCOL),
    "8.2 an empty name": (head([*pseudo(), ("", "1")]), PROTOCOL),
    "8.2 a name with NUL": (head([*pseudo(), ("x\0", "1")]), PROTOCOL),
    "8.2 a value with CR LF": (head([*pseudo(), ("x", "a\r\nb: c")]), PROTOCOL),
    "8.2 a value with LF": (head([*pseudo(), ("x", "a\nb")]), PROTOCOL),
    "8.2 a value with NUL": (head([*pseudo(), ("x", "a\0b")]), PROTOCOL),
    "8.2 a value that begins with a space": (head([*pseudo(), ("x", " a")]), PROTOCOL),
    "8.2 a value that ends with a tab": (head([*pseudo(), ("x", "a\t")]), PROTOCOL),
    "8.2.2 connection": (head([*pseudo(), ("connection", "keep-alive")]), PROTOCOL),
    "8.2.2 keep-alive": (head([*pseudo(), ("keep-alive", "1")]), PROTOCOL),
    "8.2.2 proxy-connection": (head([*pseudo(), ("proxy-connection", "close")]), PROTOCOL),
    "8.2.2 transfer-encoding": (head([*pseudo("POST"), ("transfer-encoding", "chunked")]), PROTOCOL),
    "8.2.2 upgrade": (head([*pseudo(), ("upgrade", "websocket")]), PROTOCOL),
    "8.2.2 te that is not trailers": (head([*pseudo(), ("te", "trailers, deflate")]), PROTOCOL),
    "8.3 an unknown pseudo-field": (head([*pseudo(), (":test", "1")]), PROTOCOL),
    "8.3 a pseudo-field of answers": (head([*pseudo(), (":status", "200")]), PROTOCOL),
    "8.3 a pseudo-field after others": (head([*without(":path"), ("x", "1"), (":path", "/")]), PROTOCOL),
    "8.3.1 no :method": (head(without(":method")), PROTOCOL),
    "8.3.1 no :scheme": (head(without(":scheme")), PROTOCOL),
    "8.3.1 no :path": (head(without(":path")), PROTOCOL),
    "8.3.1 an empty :path": (head([*without(":path"), (":path", "")]), PROTOCOL),
    "8.3.1 a :path that is a URL": (head([*without(":path"), (":path", f"http://{HOST}/")]), PROTOCOL),
    "8.3.1 two :methods": (head([*pseudo(), (":method", "GET")]), PROTOCOL),
    "8.3.1 two :schemes": (head([*pseudo(), (":scheme", "http")]), PROTOCOL),
    "8.3.1 two :paths": (head([*pseudo(), (":path", "/")]), PROTOCOL),
    "8.3.1 two :authorities": (head([*pseudo(), (":authority", HOST)]), PROTOCOL),
    "8.3.1 an :authority with userinfo": (head([*without(":authority"), (":authority", f"me@{HOST}")]), PROTOCOL),
    "8.3.1 no :authority and no Host": (head(without(":authority")), PROTOCOL),
    "8.3.1 a Host that is not the :authority": (head([*pseudo(), ("host", "other")]), PROTOCOL),
}  # fmt: skip


@pytest.mark.parametrize(("data", "code"), STREAM.values(), ids=STREAM)
async def test_an_error_of_a_stream_ends_that_or_all_with_its_code(door: Door, data: bytes, code: int) -> None:
    heard = await converse(door.port, data, "reset")
    assert heard.goaway == code or heard.resets.get(1) == code, heard
    assert all(each[":status"] >= "400" for each in heard.heads.values()), "nothing of it was served"


# -- flow control, as a client sees it ----------------------------------------------------------------------------------------------


async def test_no_more_is_sent_than_a_stream_may_take(door: Door) -> None:
    heard = await converse(door.port, setting((4, 1)) + GET, "body")
    assert heard.bodies == {1: b"n"}


async def test_what_waited_for_the_window_is_sent_when_settings_widen_it(door: Door) -> None:
    heard = await converse(door.port, setting((4, 0)) + GET + setting((4, 3)), "body")
    assert heard.bodies == {1: b"nin"}


async def test_a_window_below_zero_is_filled_up_before_anything_is_sent(door: Door) -> None:
    heard = await converse(door.port, setting((4, 3)) + GET, "body", setting((4, 0)) + window(3, 1) + window(2, 1))
    assert heard.bodies == {1: b"e "}


async def test_a_hundred_streams_are_served_and_one_more_is_not(door: Door) -> None:
    streams = b"".join(head(pseudo("POST", "/hold"), 2 * n + 1, END_HEADERS) for n in range(101))
    heard = await converse(door.port, streams, "closed")
    assert heard.goaway in (PROTOCOL, REFUSED, CALM) or heard.resets.get(201) == REFUSED, heard


async def test_another_preface_is_not_spoken_to(door: Door) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + setting() + GET)
    said = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert said.startswith(b"HTTP/1.1 505 "), said
