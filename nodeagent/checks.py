"""One probe, done once: TCP connect, HTTP GET, gRPC health. Each returns None for "passed", else why not. None of them raises.

No library where it matters: a start is waiting for the first connect that succeeds.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import httptools

from store.model import Probe

Exec = Callable[[list[str], float], Awaitable[int]]
"""Runs a command inside the instance within so many seconds; its exit code."""

_LARGEST_HEAD = 65_536
_READ = 16_384
_UNSAFE = frozenset("\r\n\0")


async def check(probe: Probe, ip: str, port: int, run: Exec | None) -> str | None:
    """Run `probe` against the instance at `ip`, `port` being its own; why it failed, or None. Ends within `timeout_s`."""
    port = probe.port or port
    try:
        async with asyncio.timeout(probe.timeout_s):
            if probe.kind == "tcp":
                return await _tcp(ip, port)
            if probe.kind == "http":
                return await _http(probe, ip, port)
            if probe.kind == "grpc":
                return await _grpc(probe, ip, port)
            if probe.kind == "exec":
                return await _exec(probe, run)
    except TimeoutError:
        return f"no answer within {probe.timeout_s:g}s"
    except OSError as error:
        return _words(error, port)
    return f"there is no probe of kind {probe.kind!r}"


def _words(error: OSError, port: int) -> str:
    if error.errno == errno.ECONNREFUSED:
        return f"nothing listens on port {port} (does it listen on 0.0.0.0:$PORT?)"
    return f"port {port}: {os.strerror(error.errno) if error.errno else error}"


async def _connect(ip: str, port: int) -> socket.socket:
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # On a veth a refusal or an accept is there before connect_ex returns: the loop need not even be asked.
        code = found.connect_ex((ip, port))
        if code == errno.EINPROGRESS:
            code = found.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code == 0 and not _connected(found):
                await _writable(found)
                code = found.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        found.close()
        raise
    return found


def _connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


async def _writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(sock)


async def _tcp(ip: str, port: int) -> str | None:
    (await _connect(ip, port)).close()
    return None


class _Answer:
    """Collects an HTTP answer's status."""

    def __init__(self) -> None:
        self.head_done = False

    def on_headers_complete(self) -> None:
        self.head_done = True


async def _http(probe: Probe, ip: str, port: int) -> str | None:
    path = probe.path or "/"
    headers = {"host": probe.host or f"{ip}:{port}", "user-agent": "ebb-probe", "accept": "*/*", "connection": "close"}
    headers |= {name.lower(): value for name, value in probe.headers}
    text = f"GET {path if path.startswith('/') else '/' + path} HTTP/1.1\r\n"
    text += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    if _UNSAFE & set(path + "".join(f"{name}{value}" for name, value in headers.items())) or " " in path:
        return "its path or headers hold characters that HTTP does not allow"
    reader, writer = await _streams(ip, port, probe.scheme == "https")
    try:
        writer.write(f"{text}\r\n".encode())
        answer = _Answer()
        parser = httptools.HttpResponseParser(answer)
        read = 0
        while not answer.head_done:
            data = await reader.read(_READ)
            read += len(data)
            if not data or read > _LARGEST_HEAD:
                return f"port {port}: the answer to GET {path} ended before its head was whole"
            try:
                parser.feed_data(data)
            except httptools.HttpParserError as error:
                if not answer.head_done:
                    return f"port {port} does not speak HTTP/1.1: {error}"
        status = parser.get_status_code()
        return None if 200 <= status < 400 else f"GET {path} on port {port} answered {status}, want 200 to 399"
    finally:
        writer.transport.abort()


async def _streams(ip: str, port: int, tls: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if not tls:
        return await asyncio.open_connection(sock=await _connect(ip, port))
    import ssl  # here, because it is rare and not cheap to load

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # as Kubernetes: a probe does not judge certificates
    return await asyncio.open_connection(sock=await _connect(ip, port), ssl=context, server_hostname=ip)


async def _grpc(probe: Probe, ip: str, port: int) -> str | None:
    """`grpc.health.v1.Health/Check`, one call over HTTP/2 with prior knowledge."""
    name = probe.service.encode()
    message = (b"\x0a" + _varint(len(name)) + name) if name else b""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    reader, writer = await _streams(ip, port, False)
    try:
        connection.initiate_connection()
        head = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/grpc.health.v1.Health/Check"),
            (":authority", f"{ip}:{port}"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]
        connection.send_headers(1, head)
        connection.send_data(1, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
        body, status = await _grpc_answer(connection, reader, writer)
    except (h2.exceptions.H2Error, ConnectionError) as error:
        return f"port {port} does not speak gRPC: {error}"
    finally:
        writer.transport.abort()
    if status != "0":
        return f"grpc.health.v1.Health/Check on port {port} ended with status {status or 'none'}"
    # HealthCheckResponse{status: SERVING}: field 1, varint 1.
    return None if body[5:] == b"\x08\x01" else f"gRPC health of {probe.service or 'the server'!r} is not SERVING"


async def _grpc_answer(
    connection: h2.connection.H2Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[bytes, str]:
    body, status = b"", ""
    while True:
        writer.write(connection.data_to_send())
        data = await reader.read(_READ)
        if not data:
            raise ConnectionError("the connection ended")
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                status = next((value.decode() for name, value in event.headers or () if name == b"grpc-status"), status)
            elif isinstance(event, h2.events.DataReceived):
                body += event.data or b""
                if len(body) > _LARGEST_HEAD:
                    raise ConnectionError("the answer is too long")
                connection.acknowledge_received_data(event.flow_controlled_length or 0, 1)
            elif isinstance(event, h2.events.StreamEnded):
                return body, status
            elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                raise ConnectionError(f"the server gave up with error {event.error_code}")


def _varint(number: int) -> bytes:
    found = b""
    while number > 0x7F:
        found, number = found + bytes((number & 0x7F | 0x80,)), number >> 7
    return found + bytes((number,))


async def _exec(probe: Probe, run: Exec | None) -> str | None:
    if run is None:
        return "commands cannot be run in this instance"
    try:
        code = await run(probe.command, probe.timeout_s)
    except TimeoutError:
        raise
    except Exception as error:
        return f"{' '.join(probe.command)!r} could not be run: {error}"
    return None if code == 0 else f"{' '.join(probe.command)!r} exited with {code}"
