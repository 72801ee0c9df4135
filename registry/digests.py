"""Tags to digests: asks a node agent over the bus, and keeps asking with back-off while that fails."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from process import logs
from process.clock import Clock
from process.run import Jobs
from registry import imagepolicy
from registry.conditions import Resolution
from registry.plan import Wanted
from store.bus import Bus
from store.errors import BusUnavailable, StoreError
from store.messages import IMAGE_RESOLVE, ResolvedImage, ResolveImage
from store.model import Values, decode, encode
from store.projects import Policy

Secrets = Callable[[str, Sequence[str]], Awaitable[Sequence[Values]]]
"""Of a project, by name, as they are stored; those that are not there are left out."""

TIMEOUT_S = 10.0
BACKOFF_MAX_S = 300.0
NO_NODE_RETRY_S = 2.0
FORGET_S = 900.0
_AT_ONCE = 32
_NO_NODE_PATIENCE = 6
"""How many times nobody may answer before it is said as a failure: agents connect a moment after the registry."""

log = logs.get("registry.digests")


@dataclass(slots=True)
class _State:
    resolution: Resolution
    retry_at: float
    running: bool = False
    touched: float = 0


class Digests:
    """Resolutions by revision uid. `changed(wanted)` is called whenever one is known anew; `secrets` reads pull secrets as stored,
    `policy` is a project's."""

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        jobs: Jobs,
        changed: Callable[[Wanted], None],
        secrets: Secrets,
        policy: Callable[[str], Policy],
    ) -> None:
        self._bus, self._clock, self._jobs, self._changed = bus, clock, jobs, changed
        self._secrets, self._policy = secrets, policy
        self._states: dict[str, _State] = {}
        self._gate = asyncio.Semaphore(_AT_ONCE)

    def known(self, uid: str) -> Resolution | None:
        state = self._states.get(uid)
        return state.resolution if state is not None and (state.resolution.image or state.resolution.reason) else None

    def want(self, wanted: Wanted) -> float | None:
        """Ask unless it was just asked; seconds until it is worth asking again, None while an answer is under way."""
        now = self._clock.now()
        state = self._states.get(wanted.uid)
        if state is None:
            self._forget(now)
            state = self._states[wanted.uid] = _State(Resolution(), 0.0)
        state.touched = now
        if state.running or state.resolution.image:
            return None
        if now < state.retry_at:
            return state.retry_at - now
        state.running = True
        self._jobs.start(self._resolve(wanted, state), f"resolve {wanted.image}")
        return None

    async def _resolve(self, wanted: Wanted, state: _State) -> None:
        try:
            async with self._gate:
                answer = await self._ask(wanted)
        finally:
            state.running = False
        attempts = state.resolution.attempts + 1
        nobody = answer.reason == "NoNode"
        reason = "" if nobody and attempts <= _NO_NODE_PATIENCE else answer.reason
        message = _named(wanted.image, answer.message) if reason else ""
        state.resolution = Resolution(answer.image if not answer.reason else "", reason, message, attempts)
        wait_s = (
            NO_NODE_RETRY_S / 4 if nobody and not reason else NO_NODE_RETRY_S if nobody else min(2.0**attempts, BACKOFF_MAX_S)
        )
        state.retry_at = self._clock.now() + wait_s
        if answer.reason and (reason or attempts == 1):
            log.info("image not resolved", revision=f"{wanted.project}/{wanted.revision}", image=wanted.image,
                     reason=answer.reason, error=answer.message, retry_in_s=wait_s)  # fmt: skip
        self._changed(wanted)

    async def _ask(self, wanted: Wanted) -> ResolvedImage:
        policy = self._policy(wanted.project)
        if refused := imagepolicy.refusal(wanted.image, policy.registries):
            return ResolvedImage(reason="ImageNotAllowed", message=refused)
        try:
            pull_secrets = await self._secrets(wanted.project, wanted.pull_secrets) if wanted.pull_secrets else []
            question = ResolveImage(
                image=wanted.image,
                project=wanted.project,
                pull_secrets=list(pull_secrets),
                own_imports=not policy.registries,
                signature_keys=list(policy.signature_keys),
            )
            data = await self._bus.request(IMAGE_RESOLVE, encode(question), timeout_s=TIMEOUT_S)
            answer = decode(ResolvedImage, data)
        except BusUnavailable as error:
            said = f"no node agent answered for the digest of {wanted.image!r} ({error}); is a node connected? (ebb nodes)"
            return ResolvedImage(reason="NoNode", message=said)
        except StoreError as error:
            return ResolvedImage(reason="NoSecret", message=f"the pull secrets of {wanted.image!r} cannot be read: {error}")
        except ValueError as error:
            return ResolvedImage(
                reason="BadAnswer", message=f"a node agent's answer for {wanted.image!r} is no JSON we know: {error}"
            )
        if not answer.reason and not answer.image:
            return ResolvedImage(reason="BadAnswer", message=f"a node agent answered nothing for {wanted.image!r}")
        return answer

    def _forget(self, now: float) -> None:
        """Drop what nobody has wanted for long; called when something new is wanted, so the table stays small."""
        if len(self._states) > 1000:
            old = [uid for uid, state in self._states.items() if not state.running and now - state.touched > FORGET_S]
            for uid in old:
                del self._states[uid]


def _named(image: str, message: str) -> str:
    """`message`, which says what the user wrote: the node may know it by a longer name."""
    return message if image in message else f"image {image}: {message}"
