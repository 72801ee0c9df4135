"""containerd as the agent hears it: the events of our tasks, and what really is there, compared now and then.

Events may be missed (containerd restarts, the agent was away): the comparison makes that good. Asking containerd for all tasks makes
it ask every shim, which many parked instances would pay for all the time: so mostly the kernel is asked whether their processes
are still there, and containerd when it was away, when one is gone that we did not hear of, and now and then.
"""

import asyncio
import random

from nodeagent import actions as a
from nodeagent import adopt, cgroups, failures, runtime
from nodeagent.actions import Do, Task
from nodeagent.cgroups import Places
from nodeagent.containerd.client import Containerd
from nodeagent.containerd.errors import ContainerdError
from nodeagent.executor import Hands
from nodeagent.loop import Loop
from nodeagent.network.errors import NetworkError
from nodeagent.network.pool import Network
from nodeagent.observed import Observed
from nodeagent.reporter import Reporter
from nodeagent.tasks import CREATED, STOPPED, Found, TaskOom
from process import logs
from store import keys
from store.lifecycle import ENDED
from store.model import Instance, decode

LOOK_S = 10.0
COMPARE_S = 300.0
RETRY_MAX_S = 1.0
OOM_CODE = 137

_log = logs.get("nodeagent")


class Engine:
    """Between containerd and the loop. `places` is where the instances' cgroups are."""

    def __init__(self, containerd: Containerd, hands: Hands, loop: Loop, reporter: Reporter, places: Places) -> None:
        self._containerd, self._hands, self._loop, self._reporter = containerd, hands, loop, reporter
        self._places = places
        self._mode = cgroups.detect()
        self._ooms: dict[str, None] = {}
        self._problem: str | None = "containerd: not asked yet"

    def problem(self) -> str | None:
        """For /readyz."""
        return self._problem

    # -- at the beginning ------------------------------------------------------------------------------------------------------

    async def adopt(self, node: str) -> tuple[dict[str, Observed], dict[str, Found]]:
        """Everything that an earlier life of the agent left, as the loop needs it, with what containerd showed.

        Raises StoreError, ContainerdError."""
        listing = await self._hands.store.list(keys.instances(node))
        last = {entry.key.rpartition("/")[2]: decode(Instance, entry.value) for entry in listing.entries}
        for name, words in self._reporter.last_words().items():
            if name not in last or last[name].phase not in ENDED:
                last[name] = words
        found = await self._hands.tasks.list()
        for name in await self._hands.tasks.bare_snapshots() - found.keys():
            found[name] = Found(name, {})
        adopted = {}
        for name in sorted(found.keys() | last.keys()):
            if name in last:
                self._reporter.resume(name, last[name])
            adopted[name] = self._adopt_one(name, found.get(name), last.get(name))
        if adopted:
            _log.info("instances adopted", count=len(adopted), phases={n: have.phase for n, have in adopted.items()})
        return adopted, found

    def _adopt_one(self, name: str, found: Found | None, last: Instance | None) -> Observed:
        now = self._hands.clock.now()
        if found is not None:
            self._places.put(name, found.labels.get("project", ""))
        frozen = self._hands.freezer.frozen(name)
        have = adopt.recover(name, found, last, self._loop.want(name), now, frozen=frozen)
        if found is None or found.status is None:
            return have
        network: Network | None = None
        if have.address and found.pid and found.status != STOPPED:
            try:
                network = self._hands.pool.adopt(found.pid, have.address)
            except NetworkError as error:
                have = adopt.lost(have, str(error))
        self._loop.executor.adopt(name, found.labels, network)
        self._hands.inputs.adopt(name, found.labels.get("inputs", ""))
        self._hands.logs.open(name)
        return have

    def settle(self, observed: dict[str, Observed], found: dict[str, Found]) -> None:
        """Tell the exits that happened while nobody listened; call it when the loop has begun."""
        for name in observed:
            one = found.get(name)
            if one is not None and one.status == STOPPED:
                self._loop.exited(name, one.exit_code, lambda name=name: self._was_oom(name))  # type: ignore[misc]

    # -- for ever --------------------------------------------------------------------------------------------------------------

    async def hear(self) -> None:
        """Follow containerd's events; never returns."""
        pause_s = 0.05
        while True:
            try:
                async for event in self._hands.tasks.events():
                    pause_s = 0.05
                    if isinstance(event, TaskOom):
                        self._ooms[event.instance] = None
                        if len(self._ooms) > 4096:
                            self._ooms.pop(next(iter(self._ooms)))
                    else:
                        self._exited(event.instance, event.code)
            except ContainerdError as error:
                self._problem = f"containerd: {error}"
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))
            pause_s = min(pause_s * 2, RETRY_MAX_S)

    def _exited(self, instance: str, code: int) -> None:
        self._loop.exited(instance, code, lambda: code == OOM_CODE and self._was_oom(instance))

    def _was_oom(self, instance: str) -> bool:
        if self._ooms.pop(instance, True) is None:
            return True
        used = cgroups.usage(self._mode, self._places.of(instance))
        return used is not None and used.oom_kills > 0

    async def compare_for_ever(self) -> None:
        """Compare at once whenever containerd comes back, and every COMPARE_S; look every LOOK_S. Never returns."""
        compare_at = 0.0
        while True:
            away = self._problem is not None
            try:
                if away or self._hands.clock.now() >= compare_at or self._missing():
                    compare_at = self._hands.clock.now() + COMPARE_S * random.uniform(0.8, 1)
                    await self.compare()
                else:
                    await self._hands.tasks.ping()
                self._problem = None
            except ContainerdError as error:
                self._problem = f"containerd: {error}"
            await asyncio.sleep(0.2 if away or self._problem else LOOK_S * random.uniform(0.8, 1))

    def _missing(self) -> bool:
        """Whether a process has ended and nobody told us."""
        observed = self._loop.observed
        return any(
            (have := observed.get(name)) is not None and have.task in (Task.CREATED, Task.RUNNING)
            for name in self._hands.tasks.gone()
        )

    async def compare(self) -> None:
        """Make good what events did not tell. Raises ContainerdError."""
        before = dict(self._loop.observed)
        found = await self._hands.tasks.list()
        for name, have in before.items():
            if self._loop.observed.get(name) is have and have.task in (Task.CREATED, Task.RUNNING):
                self._compare_one(have, found.get(name))
        for name, one in found.items():
            if name not in before and name not in self._loop.observed and not name.startswith(runtime.TRIAL):
                _log.warning("container of nobody found; removed", instance=name)
                self._loop.add(self._adopt_one(name, one, None))

    def _compare_one(self, have: Observed, found: Found | None) -> None:
        if have.doing & {Do.DELETE_TASK, Do.CREATE_TASK, Do.START_TASK}:
            return
        if found is None or found.status is None:
            lost = failures.task_lost("containerd no longer has it")
            self._loop.tell(have.instance, a.Exited(self._hands.clock.now(), lost))
        elif found.status == STOPPED:
            self._exited(have.instance, found.exit_code)
        elif have.task == Task.CREATED and found.status != CREATED:
            self._loop.tell(have.instance, a.Done(self._hands.clock.now(), Do.START_TASK))
