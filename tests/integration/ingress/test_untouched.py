"""What an instance answers passes as it is: nothing is unpacked, nothing is kept for the next who asks."""

import asyncio
import gzip

import pytest

from tests.integration.ingress.door import instance, open_door, read_head

BOMB = gzip.compress(bytes(2**24))
HEAD = (
    b'HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nCache-Control: public, max-age=600\r\nETag: "a"\r\nSet-Cookie: a=1; Path=/\r\n'
    b"Set-Cookie: b=2\r\nContent-Length: %d\r\n\r\n" % len(BOMB)
)


@pytest.mark.parametrize("asked", [(), ("Accept-Encoding: identity",), ('If-None-Match: "a"',)])
async def test_a_compressed_answer_is_passed_on_packed_and_every_request_is_asked_anew(asked: tuple[str, ...]) -> None:
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await read_head(reader):
            seen.append(head)
            writer.write(HEAD + BOMB)

    async with open_door() as door, instance(answer) as port:
        await door.route()
        await door.ready("i1", port)
        for number in (1, 2, 3):
            head, _, body = (await door.get("/same", *asked)).partition(b"\r\n\r\n")
            assert body == BOMB, "the instance's bytes, neither unpacked nor packed again"
            fields = [line.lower() for line in head.split(b"\r\n")]
            assert [field for field in fields if field.startswith(b"set-cookie")] == [
                b"set-cookie: a=1; path=/",
                b"set-cookie: b=2",
            ]
            assert b"content-encoding: gzip" in fields
            assert len(seen) == number, "no answer is given twice"
        assert all(field.lower().encode() in head.lower() for field in asked for head in seen)


async def test_a_compressed_body_reaches_the_instance_as_it_was_sent() -> None:
    bodies: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_head(reader):
            bodies.append(await reader.readexactly(len(BOMB)))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with open_door() as door, instance(answer) as port:
        await door.route()
        await door.ready("i1", port)
        head = b"POST / HTTP/1.1\r\nHost: hello.default.localhost\r\nContent-Encoding: gzip\r\nConnection: close\r\n"
        given = await door.send(head + b"Content-Length: %d\r\n\r\n" % len(BOMB) + BOMB)
        assert given.startswith(b"HTTP/1.1 200 ")
    assert bodies == [BOMB]
