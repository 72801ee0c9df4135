"""Watches: every change after a resourceVersion as JSON lines, from the store's own history, until the client or the time ends."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass

import msgspec

from registry import objects, writing
from registry.api import problems, selectors
from registry.api.problems import ApiError
from registry.api.streams import Queue, Streams
from registry.objects import Kind, Object
from store import keys
from store.backend import Change, Store
from store.errors import Compacted, StoreError

BOOKMARK_EVERY_S = 30.0
_NOTHING = keys.ROOT + "nothing/"

Show = Callable[[Object], Object]


@dataclass(frozen=True, slots=True)
class Request:
    """What a watch was asked for. `after` 0: begin with everything there is, as ADDED."""

    kind: Kind
    project: str = ""
    label_selector: str = ""
    field_selector: str = ""
    after: int = 0
    timeout_s: float = 1800
    bookmarks: bool = False
    initial_events: bool = False
    root: str = ""
    """Prefix of all objects of the kind, where it is not that of API objects."""


class Watches:
    """Starts watches of the store as streams."""

    def __init__(self, store: Store, streams: Streams) -> None:
        self._store, self._streams = store, streams

    async def start(self, request: Request, show: Show) -> AsyncIterator[bytes]:
        """The stream's lines. Raises ApiError 410 when `after` is no longer known, 429 when there are too many streams."""
        watcher = _Watcher(self._store, request, show)
        if request.after and not request.initial_events:
            await self._check(request.after)
        on_idle = watcher.bookmark if request.bookmarks else None
        return self._streams.lines(watcher.run, timeout_s=request.timeout_s, idle_s=BOOKMARK_EVERY_S, on_idle=on_idle)

    async def _check(self, after: int) -> None:
        try:
            await self._store.list(_NOTHING, at=after)
        except Compacted as error:
            raise problems.gone(f"too old resource version: {after} ({error.compact_rev})") from None
        except StoreError:
            return


class _Watcher:
    """One watch: from the store's changes to lines."""

    def __init__(self, store: Store, request: Request, show: Show) -> None:
        self.request = request
        self._store, self._show = store, show
        self._name, namespace = selectors.name_field(request.field_selector)
        self._project = request.project or namespace
        self._labels = selectors.labels(request.label_selector)
        self._at = request.after

    async def run(self, queue: Queue) -> None:
        """Fill `queue` for ever; None ends the stream."""
        root = self.request.root or keys.objects(self.request.kind.plural)
        prefix = f"{root}{self._project}/" if self._project else root
        if self._project and self._name:
            prefix += self._name
        try:
            if not self.request.after or self.request.initial_events:
                await self._begin(prefix, queue)
            async with aclosing(self._store.watch(prefix, after=self._at)) as changes:  # type: ignore[type-var]
                async for batch in changes:
                    for change in batch:
                        line = self._line(change)
                        self._at = max(self._at, change.store_rev)
                        if line is not None:
                            await queue.put(line)
        except Compacted as error:
            await queue.put(self._error(problems.gone(f"too old resource version: {self._at} ({error.compact_rev})")))
        except StoreError as error:
            await queue.put(self._error(problems.unavailable(str(error))))
        await queue.put(None)

    async def _begin(self, prefix: str, queue: Queue) -> None:
        listing = await self._store.list(prefix)
        for entry in listing.entries:
            obj = writing.shown(msgspec.json.decode(entry.value), entry.store_rev)
            if self._matches(obj):
                await queue.put(self._event("ADDED", obj))
        self._at = listing.store_rev
        if self.request.initial_events and self.request.bookmarks:
            await queue.put(self.bookmark({"k8s.io/initial-events-end": "true"}))

    def _line(self, change: Change) -> bytes | None:
        before = msgspec.json.decode(change.previous) if change.previous is not None else None
        matched = before is not None and self._matches(before)
        if change.value is None:
            obj = before if before is not None else self._only_name(change.key)
            return self._event("DELETED", writing.shown(obj, change.store_rev)) if before is None or matched else None
        obj = writing.shown(msgspec.json.decode(change.value), change.store_rev)
        created = change.created_rev == change.store_rev
        if self._matches(obj):
            return self._event("ADDED" if created or (before is not None and not matched) else "MODIFIED", obj)
        return self._event("DELETED", obj) if matched and not created else None

    def _only_name(self, key: str) -> Object:
        """What is known of a deleted object whose last state the store did not keep."""
        project, name = key.split("/")[-2:]
        kind = self.request.kind
        return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name, "namespace": project}}

    def _matches(self, obj: Object) -> bool:
        return (not self._name or objects.name_of(obj) == self._name) and self._labels(obj)

    def _event(self, kind: str, obj: Object) -> bytes:
        return msgspec.json.encode({"type": kind, "object": self._show(obj)}) + b"\n"

    def bookmark(self, annotations: dict[str, str] | None = None) -> bytes:
        """Where the stream is, for a client that will come back."""
        meta: Object = {"resourceVersion": str(self._at), "creationTimestamp": None}
        if annotations:
            meta["annotations"] = annotations
        obj = {"apiVersion": self.request.kind.api_version, "kind": self.request.kind.kind, "metadata": meta}
        return msgspec.json.encode({"type": "BOOKMARK", "object": obj}) + b"\n"

    def _error(self, error: ApiError) -> bytes:
        return msgspec.json.encode({"type": "ERROR", "object": error.status()}) + b"\n"
