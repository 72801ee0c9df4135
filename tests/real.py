"""Real servers for tests: etcd, nats-server, docker-registry, each on free loopback ports, in a directory of its own.

    async with real.etcd() as etcd:
        store = await open_store(etcd.address)
        etcd.kill()                # SIGKILL; data and port stay
        await etcd.restart()       # the same data on the same port, waits until it answers

Start them from the main thread: each dies with the thread that started it, so that a killed test run leaves nothing behind.
"""

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy import nats_config
from deploy.identities import DIRECT, Identities
from deploy.ports import free_port
from process.identity import Identity, Who
from store.connect import open_store

START_TIMEOUT_S = 20.0


class NotStarted(Exception):
    """A real server did not answer in time; the message holds the end of its log."""


class Server:
    """One real program. `address` is the host:port it serves, `directory` all it keeps."""

    def __init__(self, name: str, argv: list[str], port: int, directory: Path, answers: Callable[[int], bool]) -> None:
        self.name = name
        self.argv = argv
        self.port = port
        self.directory = directory
        self._answers = answers
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """`address` as the URL its clients want."""
        return f"{'nats' if self.name == 'nats-server' else 'http'}://{self.address}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def spawn(self) -> None:
        """Start it, without waiting until it answers."""
        assert self._process is None, f"{self.name} runs already"
        with (self.directory / "log").open("ab") as log:
            # setpriv rather than preexec_fn: that one would fork, which a process with gRPC must not do.
            argv = ["setpriv", "--pdeathsig", "KILL", "--", *self.argv]
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def await_answer(self) -> None:
        """Block until it answers. Raises NotStarted."""
        for pause_s in self._pauses():
            time.sleep(pause_s)

    async def answering(self) -> None:
        """Wait until it answers. Raises NotStarted."""
        for pause_s in self._pauses():
            await asyncio.sleep(pause_s)

    async def restart(self) -> None:
        """Kill it when it runs, start it again on the same data and port, wait until it answers."""
        self.kill()
        self.spawn()
        await self.answering()

    def kill(self) -> None:
        """SIGKILL, at once. Nothing happens when it does not run."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after 5 s; returns when it is gone."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """SIGSTOP: it holds its connections and says nothing, like a hung machine. `resume()` ends it."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def log(self) -> str:
        """What it wrote so far."""
        return (self.directory / "log").read_text(errors="replace")

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        self._process = None

    def _pauses(self) -> Iterator[float]:
        until = time.monotonic() + START_TIMEOUT_S
        while not self._answers(self.port):
            if self._process is None or self._process.poll() is not None or time.monotonic() > until:
                raise NotStarted(f"{self.name} does not answer on {self.address}; its log ends:\n{self.log()[-2000:]}")
            yield 0.02


def make_etcd(directory: Path, *flags: str) -> Server:
    """An etcd of one member, not started."""
    port, peer = free_port(), free_port()
    client_url, peer_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    argv = [_program("etcd"), "--name", "test", "--data-dir", str(directory / "data"), "--logger", "zap", "--log-level", "warn"]
    argv += ["--listen-client-urls", client_url, "--advertise-client-urls", client_url]
    argv += ["--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url, "--initial-cluster", f"test={peer_url}"]
    return Server("etcd", [*argv, *flags], port, directory, _etcd_answers)


@dataclass(frozen=True)
class Secure:
    """etcd over TLS, a gate before it, and who made their certificates."""

    cluster: "Cluster"
    etcd: Server
    gate: Server

    def identity(self, role: str, name: str = "test") -> Identity:
        return self.cluster.identity(role, name)

    async def wiped(self) -> "Secure":
        """Without any key."""
        client = await open_store(self.etcd.address, self.identity("registry", "wiper"))
        for entry in (await client.list("")).entries:
            await client.delete(entry.key)
        await client.close()
        return self


@contextlib.contextmanager
def secure(*, lifetime_s: float = 3600) -> Iterator[Secure]:
    """etcd and a gate for fixtures of session scope."""
    with _directory() as directory:
        cluster = Cluster(directory / "cluster", lifetime_s=lifetime_s)
        with blocking(lambda home: make_secure_etcd(home, cluster)) as etcd:
            with blocking(lambda home: make_gate(home, cluster, etcd.address)) as gate:
                yield Secure(cluster, etcd, gate)


class Cluster:
    """An authority in `directory`, and the identities it issued there, by `identity(role, name)`."""

    def __init__(self, directory: Path, *, lifetime_s: float = 3600) -> None:
        self.directory = directory
        self.identities = Identities(directory, lifetime_s=lifetime_s)

    def issue(self, role: str, name: str = "test") -> Path:
        """(Anew) the directory of a certificate."""
        where = self.directory / f"{role}-{name}"
        self.identities.issue(Who(role, name), where, time.time())
        return where

    def identity(self, role: str, name: str = "test") -> Identity:
        return Identity(self.issue(role, name))


def make_secure_etcd(directory: Path, cluster: Cluster, *flags: str) -> Server:
    """An etcd that speaks TLS with who has a certificate for it, not started."""
    own, health = cluster.issue("etcd"), free_port()
    server = make_etcd(directory, *_tls(own), "--listen-metrics-urls", f"http://127.0.0.1:{health}", *flags)
    server.argv = [word.replace("http://", "https://") if str(health) not in word else word for word in server.argv]
    server._answers = lambda _: _etcd_answers(health)
    return server


def _tls(own: Path) -> list[str]:
    files = []
    for kind in ("", "peer-"):
        files += [
            f"--{kind}cert-file={own}/own.pem",
            f"--{kind}key-file={own}/own.pem",
            f"--{kind}trusted-ca-file={own}/ca.crt",
        ]
        files.append(f"--{kind}client-cert-auth")
    return [*files, "--client-cert-allowed-hostname", DIRECT, "--enable-grpc-gateway=false"]


def make_secure_nats(directory: Path, cluster: Cluster, *known: Who, free: bool = False) -> Server:
    """A nats-server that speaks TLS with `known`, not started. `free`: they may say and hear all."""
    port, config = free_port(), directory / "nats.conf"
    nats_config.write(config, port, cluster.issue("nats"), known)
    if free:
        text = json.loads(config.read_text())
        text["authorization"] = {"users": [{"user": who.uri} for who in known]}
        config.write_text(json.dumps(text))
    return Server("nats-server", [_program("nats-server"), "--config", str(config)], port, directory, _listens)


def make_gate(directory: Path, cluster: Cluster, etcd: str) -> Server:
    """A gate in front of `etcd`, not started."""
    port, admin = free_port(), free_port()
    argv = [sys.executable, "-P", "-m", "store.gate", "--etcd", etcd, "--listen", f"127.0.0.1:{port}"]
    argv += ["--identity", str(cluster.issue("gate")), "--admin", f"127.0.0.1:{admin}"]
    return Server("gate", argv, port, directory, lambda _: _http(admin, "/readyz", b"ok"))


@contextlib.asynccontextmanager
async def gate(cluster: Cluster, etcd: str) -> AsyncIterator[Server]:
    """A running gate."""
    with _directory() as directory:
        async with _running(make_gate(directory, cluster, etcd)) as server:
            yield server


@contextlib.asynccontextmanager
async def secure_etcd(cluster: Cluster, *flags: str) -> AsyncIterator[Server]:
    with _directory() as directory:
        async with _running(make_secure_etcd(directory, cluster, *flags)) as server:
            yield server


@contextlib.asynccontextmanager
async def secure_nats(cluster: Cluster, *known: Who) -> AsyncIterator[Server]:
    with _directory() as directory:
        async with _running(make_secure_nats(directory, cluster, *known)) as server:
            yield server


def make_nats(directory: Path, *flags: str) -> Server:
    """A nats-server, not started."""
    port = free_port()
    argv = [_program("nats-server"), "--addr", "127.0.0.1", "--port", str(port)]
    return Server("nats-server", [*argv, *flags], port, directory, _nats_answers)


def make_registry(directory: Path, *, htpasswd: Path | None = None) -> Server:
    """A docker-registry that allows deletion, with basic auth when `htpasswd` (bcrypt) is given; not started."""
    port = free_port()
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if htpasswd is not None:
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(htpasswd)}}
    file = directory / "config.yml"
    file.write_text(json.dumps(config))
    return Server("docker-registry", [_program("docker-registry"), "serve", str(file)], port, directory, _registry_answers)


@contextlib.asynccontextmanager
async def etcd(*flags: str) -> AsyncIterator[Server]:
    """A running etcd of one member; `flags` are added to its own."""
    with _directory() as directory:
        async with _running(make_etcd(directory, *flags)) as server:
            yield server


@contextlib.asynccontextmanager
async def nats(*flags: str) -> AsyncIterator[Server]:
    """A running nats-server; `flags` are added to its own."""
    with _directory() as directory:
        async with _running(make_nats(directory, *flags)) as server:
            yield server


@contextlib.asynccontextmanager
async def registry(*, htpasswd: Path | None = None) -> AsyncIterator[Server]:
    """A running docker-registry on plain http."""
    with _directory() as directory:
        async with _running(make_registry(directory, htpasswd=htpasswd)) as server:
            yield server


@contextlib.contextmanager
def blocking(make: Callable[[Path], Server]) -> Iterator[Server]:
    """A running server for fixtures of session scope, which have no event loop: `with real.blocking(real.make_etcd)`."""
    with _directory() as directory:
        server = make(directory)
        try:
            server.spawn()
            server.await_answer()
            yield server
        finally:
            server.stop()


def wipe(etcd: Server) -> None:
    """Delete every key of a running etcd."""
    connection = http.client.HTTPConnection("127.0.0.1", etcd.port, timeout=5)
    with contextlib.closing(connection):
        connection.request("POST", "/v3/kv/deleterange", '{"key": "AA==", "range_end": "AA=="}')
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body


@contextlib.asynccontextmanager
async def _running(server: Server) -> AsyncIterator[Server]:
    try:
        server.spawn()
        await server.answering()
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="ebb-test-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _program(name: str) -> str:
    """The program beside this Python, or on PATH. Raises NotStarted when it is nowhere."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise NotStarted(f"{name} is not installed; run deploy/test, which installs all that tests need")
    return found


def _etcd_answers(port: int) -> bool:
    return _http(port, "/health", b'"health":"true"')


def _registry_answers(port: int) -> bool:
    return _http(port, "/v2/", b"")


def _http(port: int, path: str, part: bytes) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        return answer.status in (200, 401) and part in body
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _nats_answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            return connection.recv(5) == b"INFO "
    except OSError:
        return False
