"""Which tasks' processes the kernel says are gone: found out without asking containerd, and so without asking every shim."""

import subprocess
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from nodeagent.pb import task_types_pb2, tasks_pb2
from nodeagent.tasks import Tasks


class OneTask:
    """A containerd whose tasks all have `pid` for their first process."""

    namespace, socket = "ebb", "/nowhere/containerd.sock"

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.tasks = self.containers = self

    async def Delete(self, request: Any, timeout_s: float = 0) -> Any:
        return None

    async def List(self, request: Any) -> Any:
        if isinstance(request, tasks_pb2.ListTasksRequest):
            one = task_types_pb2.Process(container_id="one", pid=self.pid, status=task_types_pb2.RUNNING)
            return tasks_pb2.ListTasksResponse(tasks=[one])
        return SimpleNamespace(containers=[SimpleNamespace(id="one", labels={})])


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    made = subprocess.Popen(["sleep", "60"])
    yield made
    made.kill()
    made.wait()


async def test_a_process_that_ended_is_gone_also_while_nobody_has_waited_for_it(process: subprocess.Popen[bytes]) -> None:
    tasks = Tasks(OneTask(process.pid), "crun")  # type: ignore[arg-type]
    await tasks.list()
    assert tasks.gone() == set()
    process.kill()
    while not tasks.gone():
        pass
    assert tasks.gone() == {"one"}


async def test_a_task_that_was_deleted_is_not_missed(process: subprocess.Popen[bytes]) -> None:
    tasks = Tasks(OneTask(process.pid), "crun")  # type: ignore[arg-type]
    await tasks.list()
    await tasks.delete_task("one")
    process.kill()
    process.wait()
    assert tasks.gone() == set()
