"""`ebb deploy`: write the Service, then watch it come up, step by step."""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from cli import rows, show
from cli.client import Api, Object
from cli.errors import Refused
from cli.steps import Steps

POLL_S = 0.1
FAILED_FOR_S = 1.0
"""A service may be not Ready for a moment while parts of it change: only what stays so is a failure."""


class Pulls(threading.Thread):
    """Listens to the nodes' pulls in the background; `text` is the latest in words. Never an error of the deploy."""

    def __init__(self, api: Api, image: str) -> None:
        super().__init__(daemon=True, name="pulls")
        self._api, self._image = api, image
        self.text = ""
        self.message = ""

    def run(self) -> None:
        with contextlib.suppress(Exception):
            for item in self._api.lines(self._api.own("images:progress"), quiet_s=600):
                if self._image.split("@")[0].rpartition("/")[2].split(":")[0] in item.get("image", ""):
                    self.text = pull_text(item)
                    self.message = item.get("message", "")


def names_a_registry(image: str) -> bool:
    """Whether the reference's first part is a host, as `docker` would take it."""
    first, slash, _ = image.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost")


def pull_text(item: Object) -> str:
    """A PullProgress in words: its state and every layer's share."""
    layers = [
        f"{d.partition(':')[2][:8]} {100 * done // total if total else 100}%" for d, done, total in item.get("layers", [])
    ]
    done, total = (sum(layer[n] for layer in item.get("layers", [])) for n in (1, 2))
    head = f"{item.get('state', '')} on {item.get('node', '')}"
    return f"{head}: {rows.size(done)} of {rows.size(total)} [{', '.join(layers)}]" if layers else head


class Rollout:
    """Follows one deploy of `name` to its end."""

    def __init__(self, api: Api, name: str, steps: Steps, clock: Callable[[], float] = time.monotonic) -> None:
        self._api, self._name, self._steps, self._clock = api, name, steps, clock
        self._seen: set[str] = set()
        self._failing_since: float | None = None

    def wait(self, written: Object, image: str, timeout_s: float) -> Object:
        """The Service once it is Ready at `written`'s generation. Raises Refused with reason, exit code and last log lines."""
        generation = written["metadata"].get("generation", 1)
        pulls = Pulls(self._api, image)
        pulls.start()
        deadline = self._clock() + timeout_s
        while True:
            service = self._api.get(self._api.path("services", self._name))
            status = service.get("status") or {}
            current = status.get("observedGeneration") == generation
            revision = self._revision(status.get("latestCreatedRevisionName", "")) if current else None
            if current and rows.condition(service).get("status") == "True":
                self._once("traffic", f"traffic: {rows.shares(service) or 'unchanged'}")
                return dict(service)
            self._check(service if current else {}, revision, image)
            waiting = rows.condition(service).get("message") or rows.condition(service).get("reason") or "the controller"
            self._steps.now(pulls.text or f"waiting for {self._name}: {waiting}")
            if self._clock() > deadline:
                raise Refused(
                    f"service {self._name} is not ready after {timeout_s:g} s ({waiting}); it goes on in the background: "
                    f"see `ebb services {self._name}` and `ebb logs {self._name}`"
                )
            time.sleep(POLL_S)

    def _revision(self, name: str) -> Object | None:
        revision = self._api.find("revisions", name) if name else None
        if revision is None:
            return None
        self._once("revision", f"revision {name}")
        statuses = (revision.get("status") or {}).get("containerStatuses") or [{}]
        digest = statuses[0].get("imageDigest", "")
        if digest:
            self._once("image", f"image {digest.rpartition('/')[2][:46]}")
        if rows.condition(revision).get("status") != "True":
            found = self._api.items(self._api.own("instances"), {"revision": name})
            counts = rows.phases(found)
            if counts:
                self._once(f"instances {counts}", f"instances: {counts}")
        else:
            self._once("ready", f"revision {name} is ready")
        return revision

    def _check(self, service: Object, revision: Object | None, image: str) -> None:
        """Raises Refused when the deploy has failed for good."""
        bad = [obj for obj in (revision, service) if obj and rows.condition(obj).get("status") == "False"]
        if not bad:
            self._failing_since = None
            return
        now = self._clock()
        self._failing_since = self._failing_since if self._failing_since is not None else now
        if now - self._failing_since < FAILED_FOR_S:
            return
        said = rows.condition(bad[0])
        name = bad[0]["metadata"]["name"]
        lines = "\n".join(f"    {line}" for line in self._last_lines(name)) if revision and bad[0] is revision else ""
        if said.get("reason") in ("ImageNotFound", "RegistryUnavailable") and not names_a_registry(image):
            lines = (
                f"    {image!r} names no registry: it is looked for among imported images (`ebb image list`), then on docker.io"
            )
        raise Refused(f"{name}: {said.get('reason', 'Failed')}: {said.get('message', '')}" + (f"\n{lines}" if lines else ""))

    def _last_lines(self, revision: str) -> list[str]:
        try:
            found = self._api.lines(self._api.own(f"services/{self._name}/logs"), {"revision": revision, "tail": "10"}, 5)
            return [show.plain(str(line.get("line", ""))) for line in found][-10:]
        except Refused:
            return []

    def _once(self, key: str, text: str) -> None:
        if key not in self._seen:
            self._seen.add(key)
            self._steps.done(text)


def result(service: Object) -> dict[str, Any]:
    """What a script wants to know of a deploy."""
    status = service.get("status") or {}
    return {
        "service": service["metadata"]["name"],
        "url": status.get("url", ""),
        "revision": status.get("latestCreatedRevisionName", ""),
        "ready": rows.condition(service).get("status") == "True",
        "traffic": status.get("traffic", []),
    }
