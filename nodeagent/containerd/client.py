"""The connection to containerd.

    client = Containerd("/run/ebb/containerd/containerd.sock")
    await client.ready(10)
    await client.tasks.Start(tasks_pb2.StartRequest(container_id=name), timeout_s=20)
    async for info in client.snapshots.stream("List", request): ...

Every method of containerd's services is there under its published name. Calls raise `nodeagent.containerd.errors`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf import empty_pb2

from nodeagent.containerd import errors
from nodeagent.pb import (
    containers_pb2_grpc,
    content_pb2_grpc,
    diff_pb2_grpc,
    events_pb2_grpc,
    images_pb2_grpc,
    introspection_pb2_grpc,
    leases_pb2_grpc,
    namespaces_pb2,
    namespaces_pb2_grpc,
    snapshots_pb2_grpc,
    tasks_pb2_grpc,
    version_pb2_grpc,
)

NAMESPACE = "ebb"
DEADLINE_S = 10.0
"""Of a call that does not name its own."""
SNAPSHOTTER = "overlayfs"

_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", 16 * 2**20),
    ("grpc.max_send_message_length", 16 * 2**20),
    ("grpc.enable_retries", 0),
    # Go's server refuses the socket's path as an authority.
    ("grpc.default_authority", "localhost"),
]

Call = Callable[..., Awaitable[Any]]
Metadata = tuple[tuple[str, str], ...]


class Service:
    """One of containerd's services: `await service.Method(request, timeout_s=…)`; `timeout_s=None` waits for ever."""

    def __init__(self, name: str, stub: Any, metadata: Metadata) -> None:
        self._name = name
        self._stub = stub
        self._metadata = metadata

    def __getattr__(self, method: str) -> Call:
        # Looked up once a method: what is made is kept in the instance, where __getattr__ is not asked again.
        invoke = getattr(self._stub, method)
        metadata = self._metadata
        name = f"{self._name}.{method}"

        async def call(request: Any, timeout_s: float | None = DEADLINE_S) -> Any:
            try:
                return await invoke(request, timeout=timeout_s, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                raise errors.translate(error, name) from None

        self.__dict__[method] = call
        return call

    async def stream(self, method: str, request: Any, timeout_s: float | None = DEADLINE_S) -> AsyncIterator[Any]:
        """The messages that a server-streaming `method` answers; leaving the loop early cancels the call."""
        call = getattr(self._stub, method)(request, timeout=timeout_s, metadata=self._metadata)
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            raise errors.translate(error, f"{self._name}.{method}") from None
        finally:
            call.cancel()

    def duplex(self, method: str, timeout_s: float | None) -> Any:
        """The raw grpc.aio call of a two-way streaming `method`. Its errors are the caller's to translate."""
        return getattr(self._stub, method)(timeout=timeout_s, metadata=self._metadata)


class Containerd:
    """containerd's services in one namespace. Cheap to hold; `close()` it. Not for use after its event loop ended."""

    def __init__(self, socket: str, namespace: str = NAMESPACE) -> None:
        self.socket = socket
        self.namespace = namespace
        self._channel = grpc.aio.insecure_channel(f"unix://{socket}", options=_OPTIONS)
        self._services(())

    def _services(self, extra: Metadata) -> None:
        channel = self._channel
        metadata = (("containerd-namespace", self.namespace), *extra)
        self.namespaces = Service("Namespaces", namespaces_pb2_grpc.NamespacesStub(channel), metadata)
        self.content = Service("Content", content_pb2_grpc.ContentStub(channel), metadata)
        self.images = Service("Images", images_pb2_grpc.ImagesStub(channel), metadata)
        self.snapshots = Service("Snapshots", snapshots_pb2_grpc.SnapshotsStub(channel), metadata)
        self.diff = Service("Diff", diff_pb2_grpc.DiffStub(channel), metadata)
        self.leases = Service("Leases", leases_pb2_grpc.LeasesStub(channel), metadata)
        self.containers = Service("Containers", containers_pb2_grpc.ContainersStub(channel), metadata)
        self.tasks = Service("Tasks", tasks_pb2_grpc.TasksStub(channel), metadata)
        self.events = Service("Events", events_pb2_grpc.EventsStub(channel), metadata)
        self.version = Service("Version", version_pb2_grpc.VersionStub(channel), metadata)
        self.introspection = Service("Introspection", introspection_pb2_grpc.IntrospectionStub(channel), metadata)

    def under(self, gc_lease: str) -> "Containerd":
        """The same connection with everything it makes held by `gc_lease`. Not to be closed."""
        leased = object.__new__(Containerd)
        leased.socket, leased.namespace, leased._channel = self.socket, self.namespace, self._channel
        leased._services((("containerd-lease", gc_lease),))
        return leased

    async def ready(self, timeout_s: float) -> str:
        """Wait until containerd answers and our namespace exists; returns its version. Raises errors.Unavailable."""
        until = time.monotonic() + timeout_s
        while True:
            try:
                answer = await self.version.Version(empty_pb2.Empty(), timeout_s=min(2.0, timeout_s))
                await self._make_namespace()
                return str(answer.version)
            except errors.Unavailable as error:
                if time.monotonic() > until:
                    raise errors.Unavailable(
                        f"containerd at {self.socket} did not answer within {timeout_s:g} s ({error}); is it running?"
                    ) from None
                await asyncio.sleep(0.05)

    async def _make_namespace(self) -> None:
        wanted = namespaces_pb2.Namespace(name=self.namespace)
        try:
            await self.namespaces.Create(namespaces_pb2.CreateNamespaceRequest(namespace=wanted))
        except errors.AlreadyExists:
            pass

    async def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        await self._channel.close()
