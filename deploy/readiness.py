"""Whether a component is ready: by its TCP port, its Unix socket, or what it answers to a GET."""

import asyncio
import ssl
from pathlib import Path

from process.identity import BadIdentity, Identity
from process.supervise import Ready

TIMEOUT_S = 2.0


def socket(path: str) -> Ready:
    """Ready when something accepts at the Unix socket `path`."""

    async def check() -> str | None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                _, writer = await asyncio.open_unix_connection(path)
        except (OSError, TimeoutError) as error:
            return f"{path}: {error or 'no answer'}"
        writer.close()
        return None

    return check


def tcp(host: str, port: int, greeting: bytes = b"", *, identity: Path | None = None, name: str = "") -> Ready:
    """Ready when `host:port` accepts and, if asked for, says `greeting` first; with an identity, over TLS, as server `name`."""

    async def check() -> str | None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                secure = None if identity is None else Identity(identity).client()
                reader, writer = await asyncio.open_connection(host, port, ssl=secure, server_hostname=name or None)
                try:
                    got = await reader.read(len(greeting)) if greeting else b""
                finally:
                    writer.close()
        except (OSError, TimeoutError, ssl.SSLError, BadIdentity) as error:
            return f"{host}:{port}: {error or 'no answer'}"
        return None if got == greeting else f"{host}:{port}: unexpected greeting {got[:40]!r}"

    return check


def http(url: str) -> Ready:
    """Ready when a GET of `http://host:port/path` answers 200; otherwise says what it answered."""

    async def check() -> str | None:
        return await get(url)

    return check


async def get(url: str, timeout_s: float = TIMEOUT_S) -> str | None:
    """None when `url` answers 200, else what it answered, in a line. Never raises."""
    address, _, path = url.removeprefix("http://").partition("/")
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(f"GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
                answer = await reader.read(65536)
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        return f"{address}: {error or f'no answer in {timeout_s:g} s'}"
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    if status == [b"200"]:
        return None
    return "; ".join(body.decode("utf-8", "replace").split("\n")).strip("; ")[:300] or f"answered {status}"
