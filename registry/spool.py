"""Uploads on their way to the nodes: kept in a file while they come in, gone when the last node has them."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from registry.api.problems import ApiError


class CannotSpool(Exception):
    """The directory for uploads cannot be used."""


class Spool:
    """Files in a directory of the registry's own; leftovers of an earlier run are removed at the start."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory, self._max_bytes = directory, max_bytes

    def open(self) -> None:
        """Make the directory and empty it. Raises CannotSpool, which says the directory and the cure."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            for left in self._directory.glob("upload-*"):
                left.unlink(missing_ok=True)
        except OSError as error:
            raise CannotSpool(
                f"--data {self._directory} cannot be used for uploads: {error}; make it writable or name another"
            ) from error

    @asynccontextmanager
    async def receive(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[Path]:
        """The upload as a file while the context lasts. Raises ApiError 413 past the limit, 507 when the disk is full."""
        with tempfile.NamedTemporaryFile(dir=self._directory, prefix="upload-", delete=False) as file:
            path = Path(file.name)
            try:
                size = 0
                with self._disk_full():
                    async for chunk in chunks:
                        size += len(chunk)
                        if size > self._max_bytes:
                            limit = f"{self._max_bytes / 2**30:.1f} GiB"
                            raise ApiError(413, "RequestEntityTooLarge", f"the archive is larger than the limit of {limit}")
                        await asyncio.to_thread(file.write, chunk)
                    await asyncio.to_thread(file.flush)
                yield path
            finally:
                await asyncio.to_thread(path.unlink, missing_ok=True)

    @contextlib.contextmanager
    def _disk_full(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            said = f"the upload cannot be kept in {self._directory}: {error}; make room there or set --data elsewhere"
            raise ApiError(507, "InsufficientStorage", said) from error
