"""The images of this node: what the rest of the agent asks.

    ready = await images.ensure("docker.io/library/hello@sha256:…", project="default")
    ready.config.entrypoint, ready.chain_id

The second time it is a look into a dictionary. What one project pulled or imported is not another's: each asks the registry itself,
with its own credentials, also for what is here.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nodeagent.containerd import errors as engine_errors
from nodeagent.containerd.client import Containerd
from nodeagent.images import archive, gc, local, manifest, records, signatures
from nodeagent.images.challenge import Credential
from nodeagent.images.errors import BadImage, ImageNotFound, ImageProblem, RegistryUnavailable
from nodeagent.images.flight import Flights
from nodeagent.images.manifest import Platform
from nodeagent.images.progress import Listener, Progress
from nodeagent.images.puller import FromRegistry, Names, Origin, Puller, ReadyImage
from nodeagent.images.quota import Layers, Quota
from nodeagent.images.registry import Registry
from process import logs
from process.clock import Clock, SystemClock
from process.ids import short_id
from process.outbound import Outbound
from store import imageref
from store.imageref import ImageRef
from store.model import Values

RESOLVE_S = 9.0
ASK_AGAIN_S = 3.0
"""How long a registry may take to say again that a project may have what it has here already."""
LEASE_S = 24 * 3600.0
"""How long what a pull that failed has fetched is kept for the next try."""

Credentials = Callable[[str, Sequence[str | Values], str], Awaitable[Credential | None]]
"""(project, pull secrets, host) → what to log in with, or None."""

log = logs.get("images")


async def no_credentials(project: str, pull_secrets: Sequence[str | Values], host: str) -> Credential | None:
    """Registries are asked anonymously."""
    return None


@dataclass(frozen=True, slots=True)
class Listed:
    """One name of an image, for people."""

    name: str
    project: str
    digest: str
    size_bytes: int
    unpacked: bool
    imported: bool


class ImageStore:
    """All images of one node, in one containerd. `close()` it."""

    def __init__(
        self,
        engine: Containerd,
        *,
        node: str,
        spool: Path,
        insecure: frozenset[str] = frozenset(),
        outbound: Outbound | None = None,
        max_bytes: int = 20 * 2**30,
        credentials: Credentials = no_credentials,
        on_progress: Listener | None = None,
        registry: Registry | None = None,
        here: Platform | None = None,
        clock: Clock | None = None,
        quota: Callable[[str], int] = lambda project: 0,
        in_use: Callable[[], Set[str]] = frozenset,
    ) -> None:
        """`spool`: where archives wait while they are read. `insecure`: host:port spoken to by plain HTTP.
        `max_bytes`: of one image's layers, or one archive. `on_progress` hears of every pull. `quota`: the most bytes of
        images that a project may have here (0: no limit). `in_use`: references by digest that instances here stand on."""
        self._engine = engine
        self._node = node
        self._spool = spool
        self._max_bytes = max_bytes
        self._credentials = credentials
        self._on_progress = on_progress
        self._registry = registry or Registry(insecure, outbound=outbound)
        self._here = here or local.this_machine()
        self._clock = clock or SystemClock()
        self._puller = Puller(engine, self._here, max_bytes)
        self._quota, self._in_use = Quota(quota), in_use
        self._pulls: Flights[ReadyImage] = Flights()
        self._progress: dict[str, Progress] = {}
        self._ready: dict[tuple[str, str], ReadyImage] = {}
        """By exact name and project; an empty project is everybody."""
        self._last_used: dict[str, float] = {}

    async def close(self) -> None:
        await self._registry.close()

    def cached(self, image: str, project: str = "") -> ReadyImage | None:
        """`image` when it is known to be unpacked and `project` may use it: no waiting, no gRPC."""
        ready = self._ready.get((image, project)) or self._ready.get((image, ""))
        if ready is not None:
            self._last_used[ready.digest] = self._clock.wall()
        return ready

    @property
    def unpacked_digests(self) -> list[str]:
        """Digests known to be unpacked here: what `Node.images` says."""
        return sorted({ready.digest for ready in self._ready.values()})

    async def load(self) -> None:
        """Look once at what earlier lives of the agent have unpacked; call it at start."""
        for record in await records.all_(self._engine):
            if "@" in record.name:
                ready = await local.find(self._engine, self._here, record)
                if ready is not None:
                    self._ready[record.name, record.project] = ready

    async def ensure(
        self, image: str, *, project: str = "", pull_secrets: Sequence[str] = (), on_progress: Listener | None = None
    ) -> ReadyImage:
        """Have `image` here and unpacked for `project`. One pull for many who ask. Raises ImageProblem."""
        ready = self.cached(image, project)
        if ready is not None:
            return ready
        ref = _parse(image)
        if not ref.digest:
            ref = _parse(await self.resolve(image, project=project, pull_secrets=pull_secrets))
        exact = ref.at(ref.digest)
        # Who may not read it must not get it because another one is just pulling it.
        key = f"{exact} {project} {','.join(pull_secrets)}"
        progress = self._progress.get(key)
        if progress is None:
            progress = self._progress[key] = self._new_progress(exact)
        if on_progress is not None:
            progress.listeners.append(on_progress)
        lease = "ebb-pull-" + manifest.digest_of(key.encode())[7:39]
        try:
            ready = await self._pulls.run(key, lambda: self._pull(ref, exact, project, pull_secrets, lease, progress))
        finally:
            if on_progress is not None:
                progress.listeners.remove(on_progress)
            if key not in self._pulls:
                self._progress.pop(key, None)
        self._ready[exact, project] = ready
        if "@" in image:
            self._ready[image, project] = ready
        self._last_used[ready.digest] = self._clock.wall()
        return ready

    def _new_progress(self, image: str) -> Progress:
        progress = Progress(self._node, image, self._clock.now)
        if self._on_progress is not None:
            progress.listeners.append(self._on_progress)
        return progress

    async def resolve(
        self,
        image: str,
        *,
        project: str = "",
        pull_secrets: Sequence[str | Values] = (),
        own_imports: bool = True,
        signature_keys: Sequence[str] = (),
    ) -> str:
        """`image` as `host/repository@digest`: imported ones first, else its registry says, to `project`. Raises ImageProblem.

        Without `own_imports` what the project imported does not count. With `signature_keys` a registry's signature must.
        """
        ref = _parse(image)
        name = ref.at(ref.digest) if ref.digest else str(ref)
        with local.translated(image):
            imported = None if signature_keys else await self._imported(name, project if own_imports else "")
        if imported is not None:
            return ref.at(imported)
        here = bool(ref.digest) and self.cached(name, project) is not None
        limit_s = ASK_AGAIN_S if here else RESOLVE_S
        lookup = self._lookup(project, pull_secrets)
        try:
            async with asyncio.timeout(limit_s):
                digest = await self._registry.resolve(ref, lookup)
                if signature_keys:
                    await signatures.require(self._registry, ref, digest, signature_keys, lookup)
                return ref.at(digest)
        except (TimeoutError, RegistryUnavailable) as error:
            if here and not signature_keys:
                log.warning("registry not asked again: it is away, and the image is here", image=name, project=project)
                return name
            if isinstance(error, RegistryUnavailable):
                raise
            raise RegistryUnavailable(
                f"image {image}: {ref.host} did not answer within {limit_s:g} s; is it reachable from this node?"
            ) from None

    async def _imported(self, name: str, project: str) -> str | None:
        for owner in dict.fromkeys((project, "")):
            known = await records.get(self._engine, name, owner)
            if known is not None and known.imported:
                return known.digest
        return None

    async def import_archive(
        self, stream: AsyncIterator[bytes], name: str | None = None, project: str = ""
    ) -> list[tuple[str, str]]:
        """The images in an OCI or docker-save archive, as (name, digest); `name` for an archive with one image.

        They are `project`'s alone, or everybody's when it is empty. Raises ImageProblem.
        """
        wanted = str(_parse(name)) if name else None
        async with archive.spooled(stream, self._spool, self._max_bytes) as path:
            opened = await asyncio.to_thread(archive.open_archive, path)
            try:
                if wanted is not None and len(opened.images) != 1:
                    raise BadImage(f"name {name!r} for an archive with {len(opened.images)} images; leave the name out")
                return [await self._import(opened, image, wanted, project) for image in opened.images]
            finally:
                opened.close()

    async def _import(self, opened: archive.Archive, image: archive.Found, name: str | None, project: str) -> tuple[str, str]:
        named = name or (str(_parse(image.name)) if image.name else None)
        if named is None:
            raise BadImage("the archive gives its image no name; say one (--name hello:v1)")
        ref = imageref.parse(named)
        exact = ref.at(image.digest)
        progress = self._new_progress(named)
        names = Names((named, exact), project)
        await self._under_lease(opened, image.digest, names, f"ebb-import-{short_id()}", progress, True)
        return named, image.digest

    async def list(self) -> list[Listed]:
        """Every name by which an image is known here."""
        found = []
        for record in await records.all_(self._engine):
            ready = await local.find(self._engine, self._here, record)
            size = ready.size_bytes if ready else 0
            found.append(Listed(record.name, record.project, record.digest, size, ready is not None, record.imported))
        return found

    async def remove(self, name: str, project: str | None = None) -> bool:
        """Forget a name, and the exact name with it when no other has the same digest; False when it was not there.

        Of `project` alone; None: of all. What running instances stand on stays until they are gone.
        """
        ref = _parse(name)
        canonical = str(ref)
        all_records = [r for r in await records.all_(self._engine) if project is None or r.project == project]
        found = [record for record in all_records if record.name == canonical]
        for one in found:
            mine = [r for r in all_records if (r.project, r.digest) == (one.project, one.digest)]
            same = [record.name for record in mine if record.name.startswith(ref.name)]
            others = [each for each in same if each != canonical and "@" not in each]
            for each in [canonical] if others else same:
                await records.delete(self._engine, each, one.project)
            self._forget(one.digest, one.project)
        return bool(found)

    async def collect(self, in_use: set[str], keep_s: float, now: float) -> Sequence[str]:
        """Forget the images that nobody uses; `now` in wall seconds. Returns the names. containerd then frees the room.

        `in_use`: references by digest. An image seen for the first time counts as used now.
        """
        kept = [
            gc.Kept(record.name, record.project, record.digest, self._last_used.setdefault(record.digest, now), record.imported)
            for record in await records.all_(self._engine)
        ]
        gone = gc.choose(kept, in_use, keep_s, now)
        for name, project in gone:
            await records.delete(self._engine, name, project)
        for image in kept:
            if (image.name, image.project) in gone:
                self._forget(image.digest, image.project)
        names = [name for name, _ in gone]
        if names:
            log.info("images collected", images=names)
        return names

    def forget(self, image: str, project: str = "") -> None:
        """Look again next time: somebody found that `image` is not here after all."""
        ready = self.cached(image, project)
        if ready is not None:
            self._ready = {key: one for key, one in self._ready.items() if one.digest != ready.digest}
            self._last_used.pop(ready.digest, None)

    def _forget(self, digest: str, project: str) -> None:
        self._ready = {key: one for key, one in self._ready.items() if (one.digest, key[1]) != (digest, project)}
        if all(one.digest != digest for one in self._ready.values()):
            self._last_used.pop(digest, None)

    async def _pull(
        self, ref: ImageRef, exact: str, project: str, pull_secrets: Sequence[str], lease: str, progress: Progress
    ) -> ReadyImage:
        with local.translated(exact):
            known = await records.get(self._engine, exact, project)
            if known is not None and (ready := await local.find(self._engine, self._here, known)) is not None:
                return ready
        progress.state("resolving")
        names = Names((exact, *([str(ImageRef(ref.host, ref.repository, ref.tag))] if ref.tag else [])), project)
        origin = FromRegistry(self._registry, ref, self._lookup(project, pull_secrets))
        # One lease an image and not a try: what a failed try has fetched is there for the next.
        return await self._under_lease(origin, ref.digest, names, lease, progress, False)

    async def _under_lease(
        self, origin: Origin, digest: str, names: Names, lease: str, progress: Progress, imported: bool
    ) -> ReadyImage:
        keep = False
        try:
            with local.translated(names.names[0]):
                await records.take_lease(self._engine, lease, self._clock.wall() + LEASE_S)
                try:
                    room = partial(self._make_room, names.project, digest)
                    ready = await self._puller.pull(origin, digest, names, lease, progress, imported, room)
                except (RegistryUnavailable, engine_errors.Unavailable, asyncio.CancelledError):
                    keep = not imported
                    raise
                finally:
                    if not keep:
                        await records.drop_lease(self._engine, lease)
        except ImageProblem as problem:
            progress.state("failed", problem.message)
            raise
        finally:
            self._quota.done(names.project, digest)
        # Known before anything else runs, since what was on its way does not count any more.
        for name in names.names:
            if "@" in name:
                self._ready[name, names.project] = ready
        self._last_used[digest] = self._clock.wall()
        progress.state("done")
        return ready

    async def _make_room(self, project: str, digest: str, layers: Layers) -> None:
        """For an image of `project`, within its quota; what it pulled and nobody uses goes for it. Raises OverQuota."""
        if not self._quota.limits(project):
            return
        mine = [record for record in await records.all_(self._engine) if record.project == project]
        used = {image.rpartition("@")[2] for image in self._in_use()} | {record.digest for record in mine if record.imported}
        has = {ready.digest: ready.layers for (_, whose), ready in self._ready.items() if whose == project}
        idle = sorted(has.keys() - used, key=lambda each: self._last_used.get(each, 0))
        gone = self._quota.take(project, digest, layers, has, idle)
        for record in mine:
            if record.digest in gone:
                await records.delete(self._engine, record.name, project)
        for each in gone:
            self._forget(each, project)
        if gone:
            log.info("images let go for another, at the quota of their project", project=project, images=gone)

    def _lookup(self, project: str, pull_secrets: Sequence[str | Values]) -> Callable[[str], Awaitable[Credential | None]]:
        async def lookup(host: str) -> Credential | None:
            return await self._credentials(project, pull_secrets, host)

        return lookup


def _parse(image: str) -> ImageRef:
    try:
        return imageref.parse(image)
    except imageref.BadReference as error:
        raise BadImage(str(error)) from None


__all__ = ["ImageNotFound", "ImageProblem", "ImageStore", "Listed", "ReadyImage"]
