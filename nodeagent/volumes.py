"""Secrets and ConfigMaps as files of an instance: in memory of the machine, shown read-only, and changed in one step.

`<where>/<instance>` is a directory on a tmpfs that only root of the machine reaches; `<n>` in it is what the instance sees at the path of
its volume n. As with Kubernetes, `..data` is a link to the directory of the present values, each file a link through it, and a change
is a new directory and one rename of `..data`. It is no mount of the instance's own, for containerd's mount namespace may be another
than the agent's, and files are changed from here as long as the instance is there.
"""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from process import logs
from process.ids import short_id
from process.run import Jobs
from store import keys
from store.model import Revision
from store.volumes import Volume

FALLBACK = Path("/dev/shm")
Read = Callable[[str, Volume], Awaitable[Mapping[str, bytes]]]
"""(project, volume) → its values, as the store says now; raises InputMissing, StoreError."""
Known = Callable[[str], Mapping[str, bytes] | None]
"""A key → its values, as last heard of; None: it is not there. Raises SealError."""
_KINDS = ("tmpfs", "ramfs")
_RECORD, _SPEC = "record", "config.json"
_DATA = "..data"
_log = logs.get("nodeagent")


class NoMemory(OSError):
    """There is no tmpfs to keep Secrets in."""


class Record(msgspec.Struct, frozen=True):
    """What has to be known of an instance to change its files; no value."""

    project: str
    volumes: list[Volume]
    owner_id: int


class Volumes:
    """Those of all instances of a node. `start()` it before use; tell it `hear(key)` when a Secret or ConfigMap is another."""

    def __init__(self, where: Path, read: Read, known: Known, jobs: Jobs) -> None:
        self.where, self._read, self._known, self._jobs = where, read, known, jobs
        self._records: dict[str, Record] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    def start(self) -> None:
        """Learn what an earlier life of the agent placed. Blocking, and quick. Raises OSError."""
        self.where.mkdir(parents=True, exist_ok=True, mode=0o700)
        for place in self.where.iterdir():
            if not (place / _RECORD).exists():
                continue
            try:
                self._records[place.name] = msgspec.json.decode((place / _RECORD).read_bytes(), type=Record)
            except (OSError, msgspec.DecodeError) as error:
                _log.warning("files of an instance cannot be followed", instance=place.name, error=str(error))

    async def place(self, instance: str, revision: Revision, owner_id: int) -> Sequence[tuple[str, str]]:
        """Write the files of `revision`'s volumes: (directory, where the instance is to see it) each.

        `owner_id`: root of the instance. Raises InputMissing, StoreError, OSError."""
        if not revision.volumes:
            return ()
        record = self._records[instance] = Record(revision.project, list(revision.volumes), owner_id)
        async with self._turn(instance):
            top = await asyncio.to_thread(self._make, instance, record)
            for number, volume in enumerate(record.volumes):
                await self._write(instance, record, number, await self._read(record.project, volume))
        return [(str(top / str(number)), volume.path) for number, volume in enumerate(record.volumes)]

    async def hide(self, instance: str, spec: Mapping[str, Any]) -> bool:
        """Keep an OCI spec that has Secrets in it where only root and no disk sees it. False: there is no such place. Raises OSError."""
        if not in_memory(self.where):
            return False
        await asyncio.to_thread(self._hide, instance, msgspec.json.encode(spec))
        return True

    def hidden(self, instance: str) -> bytes | None:
        """What `hide` kept."""
        try:
            return (self.where / instance / _SPEC).read_bytes()
        except FileNotFoundError:
            return None

    def hear(self, key: str) -> None:
        """What is at `key` is another now."""
        if key in self._sources():
            self._jobs.start(self.changed(key), f"files of {key}")

    async def changed(self, key: str) -> None:
        """Let the files of who uses `key` follow. What is deleted stays as it was. Raises nothing: it is logged."""
        for instance, record in list(self._records.items()):
            for number in [n for n, volume in enumerate(record.volumes) if source(record.project, volume) == key]:
                try:
                    async with self._turn(instance):
                        # Read in turn: then what is written last is what was heard last.
                        found = self._known(key)
                        if found is not None and self._records.get(instance) is record:
                            await self._write(instance, record, number, found)
                except Exception as error:
                    _log.warning("files of an instance not renewed", instance=instance, source=key, error=str(error))

    def keep(self, instances: Container[str]) -> None:
        """After `start`: away with what is of none of `instances`."""
        for place in list(self.where.iterdir()):
            if place.name not in instances:
                self.drop(place.name)

    async def follow(self) -> None:
        """After `start`: let all files follow what changed meanwhile."""
        for key in sorted(self._sources()):
            await self.changed(key)

    def drop(self, instance: str) -> None:
        """It is gone, and so are its files."""
        self._records.pop(instance, None)
        self._turns.pop(instance, None)
        shutil.rmtree(self.where / instance, ignore_errors=True)

    def stop(self) -> None:
        """Everything goes."""
        shutil.rmtree(self.where, ignore_errors=True)
        self._records.clear()

    def _sources(self) -> set[str]:
        return {source(record.project, volume) for record in self._records.values() for volume in record.volumes}

    def _turn(self, instance: str) -> asyncio.Lock:
        return self._turns.setdefault(instance, asyncio.Lock())

    async def _write(self, instance: str, record: Record, number: int, values: Mapping[str, bytes]) -> None:
        wanted = layout(record.volumes[number], values)
        if wanted is None:
            raise LookupError("it no longer has a key that is asked for; the files stay as they were")
        await asyncio.to_thread(replace, self.where / instance / str(number), wanted, record.owner_id)

    def _hide(self, instance: str, spec: bytes) -> None:
        file = self._top(instance) / _SPEC
        file.unlink(missing_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as written:
            written.write(spec)

    def _top(self, instance: str) -> Path:
        top = self.where / instance
        top.mkdir(exist_ok=True, mode=0o700)
        return top

    def _make(self, instance: str, record: Record) -> Path:
        if not in_memory(self.where):
            raise NoMemory(f"{self.where} is not in memory: mount a tmpfs there, so that Secrets never come to a disk")
        top = self._top(instance)
        for number in range(len(record.volumes)):
            shown = top / str(number)
            shown.mkdir(exist_ok=True)
            shown.chmod(0o755)
            os.chown(shown, record.owner_id, record.owner_id)
        (top / _RECORD).write_bytes(msgspec.json.encode(record))
        return top


def place_of(containerd: Path, mark: str) -> Path:
    """Where a node's files go: beside the directory of containerd's socket, where that is in memory, else where every Linux is.

    `mark` tells the agents of one machine apart."""
    beside = containerd.parent.parent / f"files-{mark}"
    return beside if in_memory(beside) else FALLBACK / f"ebb-files-{mark}"


def in_memory(path: Path) -> bool:
    """Whether `path` is, or would be, on a tmpfs. Blocking."""
    best, kind = "", ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4]
        if (str(path) == point or str(path).startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind in _KINDS


def layout(volume: Volume, values: Mapping[str, bytes]) -> Mapping[str, tuple[bytes, int]] | None:
    """The files of a volume: path → content and mode. None: a key that it asks for, and must have, is not there."""
    if not volume.items:
        # Such names are the volume's own business; they may come from before they were refused.
        return {key: (value, volume.mode) for key, value in values.items() if not key.startswith("..")}
    if not volume.optional and any(item.key not in values for item in volume.items):
        return None
    return {
        item.path: (values[item.key], item.mode if item.mode >= 0 else volume.mode)
        for item in volume.items
        if item.key in values
    }


def replace(shown: Path, wanted: Mapping[str, tuple[bytes, int]], owner_id: int) -> bool:
    """Make the directory `shown` what `wanted` says, in one step for who reads it. False: it is so already. Blocking."""
    data = shown / _DATA
    old = shown / os.readlink(data) if data.is_symlink() else None
    if old is not None and _held(old) == dict(wanted):
        return False
    fresh = shown / f"..{short_id(10)}"
    try:
        _fill(fresh, wanted, owner_id)
        link = shown / "..data_new"
        link.unlink(missing_ok=True)
        link.symlink_to(fresh.name)
        link.rename(data)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    tops = {path.split("/")[0] for path in wanted}
    for top in tops:
        if not (shown / top).is_symlink():
            (shown / top).symlink_to(f"{_DATA}/{top}")
    for path in shown.iterdir():
        if not path.name.startswith("..") and path.name not in tops:
            path.unlink()
        elif path.name.startswith("..") and path not in (data, fresh):
            shutil.rmtree(path, ignore_errors=True)
    return True


def _fill(fresh: Path, wanted: Mapping[str, tuple[bytes, int]], owner_id: int) -> None:
    _directory(fresh, owner_id)
    for path, (value, mode) in wanted.items():
        file = fresh
        for part in path.split("/")[:-1]:
            file = file / part
            if not file.exists():
                _directory(file, owner_id)
        file = fresh / path
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as written:
            written.write(value)
        os.chown(file, owner_id, owner_id)
        file.chmod(mode)


def _directory(path: Path, owner_id: int) -> None:
    path.mkdir()
    path.chmod(0o755)
    os.chown(path, owner_id, owner_id)


def _held(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(file.relative_to(directory)): (file.read_bytes(), file.stat().st_mode & 0o777)
        for file in directory.rglob("*")
        if file.is_file()
    }


def source(project: str, volume: Volume) -> str:
    """The key in the store that a volume's values are at."""
    return keys.secret(project, volume.secret) if volume.secret else keys.config(project, volume.config)
