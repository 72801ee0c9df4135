"""Writing a blob: what containerd's passing troubles may not hide."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from nodeagent.containerd import errors
from nodeagent.containerd.client import Containerd
from nodeagent.images import ingest
from nodeagent.images.errors import BadDigest
from nodeagent.images.manifest import Descriptor

BLOB = Descriptor("application/octet-stream", "sha256:" + "0" * 64, 4)


class Call:
    """A write stream that answers STAT with "nothing yet" and takes what comes."""

    async def write(self, _: object) -> None: ...

    async def read(self) -> Any:
        return SimpleNamespace(offset=0)

    def cancel(self) -> None: ...


class Content:
    def __init__(self, answers: list[Exception | None]) -> None:
        self.answers = answers

    def duplex(self, _name: str, _deadline_s: float) -> Call:
        return Call()

    async def Abort(self, _: object) -> None:
        if (answer := self.answers.pop(0)) is not None:
            raise answer


@pytest.mark.parametrize(
    "answers",
    [
        [None],
        [errors.NotFound("Content.Abort: no such ref")],
        [errors.ContainerdError("Content.Abort: unlinkat …/ingest/x: directory not empty"), None],
        [errors.Unavailable("Content.Abort: ref is locked"), None],
    ],
)
async def test_wrong_bytes_are_told_as_such_whatever_the_clean_up_meets(answers: list[Exception | None]) -> None:
    content = Content(answers)
    engine = cast(Containerd, SimpleNamespace(content=content))
    with pytest.raises(BadDigest, match=BLOB.digest):
        await ingest.put(engine, BLOB, b"12345")
    assert content.answers == []
