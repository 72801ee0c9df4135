"""Performs one action on one instance and says what came of it, as one event. What it cannot do never raises: it is an event too."""

import asyncio
import signal
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from nodeagent import actions as a
from nodeagent import cgroups, failures
from nodeagent.actions import Action, Do, Event, Task
from nodeagent.blueprint import Blueprints
from nodeagent.containerd import errors
from nodeagent.fences import Fences
from nodeagent.freezer import Freezer
from nodeagent.gate import Gate, Rank
from nodeagent.groups import Groups
from nodeagent.images.errors import EngineUnavailable, ImageProblem
from nodeagent.images.facade import ImageStore, ReadyImage
from nodeagent.inputs import InputMissing, Inputs
from nodeagent.joining import Joining
from nodeagent.logs import Logs, Owner
from nodeagent.network.pool import Network, NetworkPool
from nodeagent.observed import Observed
from nodeagent.ocispec import BadSpec
from nodeagent.prober import Prober
from nodeagent.profiles import NotAllowed
from nodeagent.readiness import Became, Verdict
from nodeagent.residents import Residents, Who
from nodeagent.tasks import Tasks
from nodeagent.uids import Exhausted
from nodeagent.userdb import BadUser
from nodeagent.volumes import Volumes
from process import logs as process_logs
from process.clock import Clock
from store import keys
from store.backend import Store
from store.errors import StoreError
from store.model import Assignment, Failure, Goal, Revision, decode

REVISIONS_KEPT = 2048

_log = process_logs.get("nodeagent")


@dataclass(slots=True)
class Hands:
    """What the executor works with."""

    store: Store
    images: ImageStore
    pool: NetworkPool
    tasks: Tasks
    logs: Logs
    prober: Prober
    blueprints: Blueprints
    clock: Clock
    root: Path
    inputs: Inputs
    volumes: Volumes
    freezer: Freezer
    residents: Residents
    fences: Fences
    joining: Joining
    groups: Groups = field(default_factory=Groups)
    sandbox_tried: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is known whether this node can run gVisor."""
    gate: Gate = field(default_factory=lambda: Gate(4))


class Executor:
    """One for the agent. `tell(instance, event)` is for what happens inside an action (a pull begins)."""

    def __init__(self, hands: Hands, tell: Callable[[str, Event], None], give_up: Callable[[str, Failure], None]) -> None:
        self._hands = hands
        self._tell = tell
        self._give_up = give_up
        self._revisions: OrderedDict[str, Revision] = OrderedDict()
        self._networks: dict[str, Network] = {}
        self._images: dict[str, ReadyImage] = {}
        self._started: dict[str, float] = {}
        self._perform: dict[Do, Callable[[str, Assignment | None, Observed], Awaitable[Event]]] = {
            Do.LOAD_REVISION: self._load_revision,
            Do.ENSURE_IMAGE: self._ensure_image,
            Do.TAKE_NETWORK: self._take_network,
            Do.CREATE_CONTAINER: self._create_container,
            Do.CREATE_TASK: self._create_task,
            Do.START_TASK: self._start_task,
            Do.PROBE: self._probe,
            Do.FREEZE: self._freeze,
            Do.THAW: self._thaw,
            Do.TERM: self._term,
            Do.KILL: self._kill,
            Do.DELETE_TASK: self._delete_task,
            Do.DELETE_CONTAINER: self._delete_container,
            Do.RELEASE_NETWORK: self._release_network,
        }

    async def perform(self, action: Action, want: Assignment | None, have: Observed) -> Event:
        """Do it. Cancelled, it raises CancelledError; nothing else."""
        now = self._hands.clock.now
        try:
            return await self._perform[action.do](action.instance, want, have)
        except (errors.Unavailable, EngineUnavailable, StoreError) as error:
            return a.Interrupted(now(), action.do, str(error))
        except ImageProblem as problem:
            return a.Failed(now(), action.do, Failure(reason=problem.reason, message=problem.message))
        except InputMissing as missing:
            return a.Failed(now(), action.do, missing.failure)
        except (BadSpec, BadUser) as error:
            return a.Failed(now(), action.do, Failure(reason="StartFailed", message=str(error)))
        except NotAllowed as error:
            return a.Failed(now(), action.do, Failure(reason="NotAllowed", message=str(error)))
        except Exhausted as error:
            return a.Failed(now(), action.do, Failure(reason="NoIds", message=str(error)))
        except errors.ContainerdError as error:
            if action.do not in a.BUILDING:
                _log.warning(
                    "teardown step failed; it is tried again", instance=action.instance, do=action.do, error=str(error)
                )
            return a.Failed(now(), action.do, failures.start_failed(str(error), self._argv(action.instance, have)))
        except Exception as error:
            _log.exception("action failed", instance=action.instance, do=action.do)
            return a.Failed(now(), action.do, Failure(reason="StartFailed", message=f"{action.do}: {error!r}"))

    def adopt(self, instance: str, labels: Mapping[str, str], network: Network | None) -> None:
        """`instance` was found running or parked; `labels` are those that its container was made with."""
        project = labels.get("project", "")
        self._hands.fences.adopt(instance, project)
        if network is not None:
            self._networks[instance] = network
            who = Who(instance, project, labels.get("revision", ""), labels.get("service", ""), labels.get("egress", ""))
            self._hands.residents.add(network.address, who)
        if group := labels.get("group", ""):
            self._hands.groups.adopt(_crew(project, labels.get("runtime", "")), instance, group)

    async def permit(self, project: str) -> None:
        """The policy of `project` may be another: its instances shall keep to it. Raises NetworkError, OSError."""
        for network in list(self._networks.values()):
            who = self._hands.residents.at(network.address)
            if who is not None and who.project == project:
                await self._hands.pool.permit(network, self._hands.residents.permit(who))

    def projects(self) -> set[str]:
        """Of the instances that are here."""
        return {who.project for network in self._networks.values() if (who := self._hands.residents.at(network.address))}

    def networks_in_use(self) -> set[str]:
        """Addresses of instances."""
        return {network.address for network in self._networks.values()}

    def forget_image(self, have: Observed) -> None:
        """What the image store believed is not so."""
        if have.revision is not None:
            self._hands.images.forget(have.revision.image)

    # -- building up -----------------------------------------------------------------------------------------------------------

    async def _load_revision(self, instance: str, want: Assignment | None, have: Observed) -> Event:
        assert want is not None
        key = want.revision_key
        revision = self._revisions.get(key)
        if revision is None:
            entry = await self._hands.store.get(keys.revision(want.project, want.revision))
            if entry is None:
                missing = Failure(reason="RevisionMissing", message=f"revision {key} is not stored; it was deleted")
                return a.Failed(self._hands.clock.now(), Do.LOAD_REVISION, missing)
            revision = self._revisions[key] = decode(Revision, entry.value)
            if len(self._revisions) > REVISIONS_KEPT:
                self._revisions.popitem(last=False)
        revision = self._hands.fences.bound(revision)
        return a.RevisionLoaded(self._hands.clock.now(), Do.LOAD_REVISION, revision=revision)

    async def _ensure_image(self, instance: str, want: Assignment | None, have: Observed) -> Event:
        revision = have.revision
        assert revision is not None
        began = self._hands.clock.now()
        image = self._hands.images.cached(revision.image, revision.project)
        if image is None:
            self._tell(instance, a.PullBegan(began))
            image = await self._hands.images.ensure(
                revision.image, project=revision.project, pull_secrets=revision.pull_secrets
            )
        self._images[instance] = image
        return self._done(Do.ENSURE_IMAGE, "pull", began)

    async def _take_network(self, instance: str, want: Assignment | None, have: Observed) -> Event:
        began = self._hands.clock.now()
        network = self._networks.get(instance)
        if network is None:
            network = self._networks[instance] = await self._hands.pool.take()
        revision = have.revision
        assert revision is not None
        who = Who(instance, revision.project, revision.name, revision.service, revision.egress)
        self._hands.residents.add(network.address, who)
        await self._hands.pool.permit(network, self._hands.residents.permit(who))
        now = self._hands.clock.now()
        return a.NetworkTaken(now, Do.TAKE_NETWORK, {"network": _ms(began, now)}, address=network.address)

    async def _create_container(self, instance: str, want: Assignment | None, have: Observed) -> Event:
        revision, image, network = have.revision, self._images[instance], self._networks[instance]
        assert revision is not None
        assert want is not None
        hands = self._hands
        if revision.runtime:
            await hands.sandbox_tried.wait()
            if revision.runtime not in hands.tasks.runtimes:
                said = f"this node cannot run {revision.runtime}: runsc is not installed or does not work (see the agent's log)"
                return a.Failed(hands.clock.now(), Do.CREATE_CONTAINER, Failure(reason="NoRuntime", message=said))
        began = hands.clock.now()
        if want.goal == Goal.RUN and hands.gate.idle:
            asyncio.get_running_loop().run_in_executor(None, cgroups.stir)
        try:
            await self._make_container(instance, want, revision, image, network)
        except errors.NotFound as error:
            # Somebody removed the image behind our back: look again, once.
            hands.images.forget(revision.image, revision.project)
            self._images[instance] = image = await hands.images.ensure(
                revision.image, project=revision.project, pull_secrets=revision.pull_secrets
            )
            _log.warning("image was gone; fetched again", image=revision.image, error=str(error))
            await self._make_container(instance, want, revision, image, network)
        hands.inputs.look(instance)
        return self._done(Do.CREATE_CONTAINER, "snapshot", began)

    async def _make_container(
        self, instance: str, want: Assignment, revision: Revision, image: ReadyImage, network: Network
    ) -> None:
        hands = self._hands
        filled, used = await hands.inputs.resolve(revision)
        held = image.chain_id if hands.fences.detached else ""
        mounts = await (hands.tasks.stand_on(instance, held) if held else hands.tasks.prepare(instance, image.chain_id))
        fence = await hands.fences.enter(instance, revision)
        group = hands.groups.join(_crew(revision.project, revision.runtime), instance)
        volumes = await hands.volumes.place(instance, revision, fence.first_id)
        spec = hands.blueprints.build(filled, image, network, instance, group, mounts, fence, volumes)
        if (
            hands.joining.works
            and any(key.startswith(keys.SECRETS) for key in used)
            and await hands.volumes.hide(instance, spec)
        ):
            bare = msgspec.structs.replace(revision, env_refs=[], env_from=[])
            spec = hands.blueprints.build(bare, image, network, instance, group, mounts, fence, volumes)
        labels = {
            "project": revision.project,
            "revision": revision.name,
            "service": revision.service,
            "address": network.address,
            "cause": want.cause_id,
            "group": group,
            "runtime": revision.runtime,
            "egress": revision.egress,
            "inputs": hands.inputs.use(instance, used),
        }
        await hands.tasks.create_container(instance, labels, spec, revision.runtime, held)

    async def _create_task(self, instance: str, want: Assignment | None, have: Observed) -> Event:
        hands = self._hands
        rank = Rank.START if want is not None and want.goal == Goal.RUN else Rank.PARK
        assert have.revision is not None
        owner = Owner(have.revision.project, have.revision.service, have.revision.name)
        stdout, stderr = hands.logs.open(instance, owner)
        began = hands.clock.now()
        async with hands.gate.place(rank, instance, have.revision.key):
            if mate := hands.groups.settled_mate(instance):
                hands.joining.join(instance, mate)
            try:
                mount = (await hands.tasks.mounts(instance))[0]
                async with hands.fences.lay(instance, have.revision.project, mount) as mounts:
                    owner_id = hands.fences.stdio(instance)
                    await hands.tasks.create_task(instance, stdout, stderr, have.revision.runtime, mounts, owner_id)
            except errors.ContainerdError:
                hands.groups.broken(instance)
                hands.joining.forget(instance)
                raise
        hands.groups.settled(instance)
        return self._done(Do.CREATE_TASK, "create", began)

    async def _start_task(self, instance: str, want: Assignment | None, have: Observed) -> Event:
        began = self._hands.clock.now()
        async with self._hands.gate.starting():
            await self._hands.tasks.start(instance)
        self._started[instance] = self._hands.clock.now()
        return self._done(Do.START_TASK, "start", began)

    async def _probe(self, instance: str, want: Assignment | None, have: Observed) -> Event:
        assert have.revision is not None
        prober = self._hands.prober
        prober.start(instance, have.revision, have.address, self._hands.tasks.exec_, self._verdict, ready=have.ready)
        return a.Done(self._hands.clock.now(), Do.PROBE)

    def _verdict(self, instance: str, verdict: Verdict) -> None:
        now = self._hands.clock.now()
        match verdict.became:
            case Became.READY:
                began = self._started.pop(instance, None)
                self._tell(instance, a.Readiness(now, True, {"probe": _ms(began, now)} if began is not None else {}))
            case Became.NOT_READY:
                self._tell(instance, a.Readiness(now, False))
            case Became.STARTUP_FAILED:
                self._give_up(instance, Failure(reason="NeverReady", message=verdict.message))
            case Became.LIVENESS_FAILED:
                self._give_up(instance, Failure(reason="LivenessFailed", message=verdict.message))

    async def _freeze(self, instance: str, want: Assignment | None, have: Observed) -> Event:
        """Also gives back what memory it has not used lately, in its own time: a request need not wait for that."""
        self._hands.freezer.freeze(instance)
        self._hands.prober.pause(instance)
        asyncio.get_running_loop().run_in_executor(None, self._hands.freezer.reclaim, instance)
        return a.Done(self._hands.clock.now(), Do.FREEZE)

    async def _thaw(self, instance: str, want: Assignment | None, have: Observed) -> Event:
        began = self._hands.clock.now()
        self._hands.freezer.thaw(instance)
        self._hands.prober.resume(instance)
        return self._done(Do.THAW, "thaw", began)

    # -- taking down -----------------------------------------------------------------------------------------------------------

    async def _term(self, instance: str, want: Assignment | None, have: Observed) -> Event:
        return await self._signal(Do.TERM, instance, signal.SIGTERM)

    async def _kill(self, instance: str, want: Assignment | None, have: Observed) -> Event:
        return await self._signal(Do.KILL, instance, signal.SIGKILL)

    async def _signal(self, do: Do, instance: str, number: signal.Signals) -> Event:
        self._hands.prober.stop(instance)
        runs = await self._hands.tasks.kill(instance, number)
        if not runs:
            self._tell(instance, a.Exited(self._hands.clock.now(), failures.task_lost("it ended unheard")))
        return a.Done(self._hands.clock.now(), do)

    async def _delete_task(self, instance: str, want: Assignment | None, have: Observed) -> Event:
        self._hands.prober.stop(instance)
        self._hands.groups.leave(instance)
        if have.task != Task.EXITED:
            await self._hands.tasks.end(instance)
        async with self._hands.gate.place(Rank.TEARDOWN):
            await self._hands.tasks.delete_task(instance)
        await self._hands.logs.close(instance)
        return a.Done(self._hands.clock.now(), Do.DELETE_TASK)

    async def _delete_container(self, instance: str, want: Assignment | None, have: Observed) -> Event:
        self._hands.groups.leave(instance)
        async with self._hands.gate.place(Rank.TEARDOWN):
            await self._hands.tasks.delete_container(instance)
        await self._hands.fences.leave(instance)
        (self._hands.root / instance / "hosts").unlink(missing_ok=True)
        self._hands.joining.forget(instance)
        self._hands.inputs.drop(instance)
        self._hands.volumes.drop(instance)
        self._images.pop(instance, None)
        self._started.pop(instance, None)
        return a.Done(self._hands.clock.now(), Do.DELETE_CONTAINER)

    async def _release_network(self, instance: str, want: Assignment | None, have: Observed) -> Event:
        network = self._networks.pop(instance, None)
        if network is not None:
            self._hands.residents.drop(network.address)
            self._hands.pool.release(network)
        return a.Done(self._hands.clock.now(), Do.RELEASE_NETWORK)

    # -- helpers ---------------------------------------------------------------------------------------------------------------

    def _done(self, do: Do, step: str, began: float) -> Event:
        now = self._hands.clock.now()
        return a.Done(now, do, {step: _ms(began, now)})

    def _argv(self, instance: str, have: Observed) -> list[str]:
        image, revision = self._images.get(instance), have.revision
        if revision is not None and revision.command:
            return revision.command
        return list(image.config.entrypoint or image.config.cmd) if image is not None else []


def _crew(project: str, runtime: str) -> str:
    """Whose instances may share a shim: one project's, of one runtime."""
    return f"{project}/{runtime}" if runtime else project


def _ms(began: float, now: float) -> float:
    return round((now - began) * 1000, 3)
