"""From flags to the API's objects. Pure: objects in, objects out; what cannot be is BadUsage."""

import copy
from collections.abc import Sequence
from typing import Any

import msgspec

from cli.errors import BadUsage

TCP_PORT = "ebb.dev/tcp-port"
SCALING = "autoscaling.knative.dev/"
ENVIRONMENT = "run.googleapis.com/execution-environment"
INGRESS, UNAUTHENTICATED, INVOKERS = "ebb.dev/ingress", "ebb.dev/allow-unauthenticated", "ebb.dev/invokers"
RATE, EGRESS = "ebb.dev/requests-per-second", "ebb.dev/egress"
API_VERSION = "serving.knative.dev/v1"
Object = dict[str, Any]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What `ebb deploy` was asked for; None and empty mean: as it is, or the default."""

    image: str = ""
    env: Sequence[str] = ()
    secrets: Sequence[str] = ()
    """`ENV=SECRET:KEY` words."""
    pull_secrets: Sequence[str] = ()
    port: int | None = None
    tcp: int | None = None
    """The front door's port for raw TCP; 0: HTTP again."""
    concurrency: int | None = None
    min_scale: int | None = None
    max_scale: int | None = None
    timeout_s: int | None = None
    cpu: str = ""
    memory: str = ""
    command: Sequence[str] = ()
    args: Sequence[str] = ()
    annotations: Sequence[str] = ()
    environment: str = ""
    """gen1, gen2 or sandboxed: Cloud Run's execution environments."""
    labels: Sequence[str] = ()
    ingress: str = ""
    """all, internal or none: by which door it is called."""
    unauthenticated: bool | None = None
    """Whether everybody may call it."""
    invokers: Sequence[str] = ()
    """Principals that may call it; `NAME-` takes one away."""
    egress: str = ""
    """Where its instances may connect to."""
    requests_per_s: float | None = None
    """0: no limit of its own."""
    revision_suffix: str = ""
    no_traffic: bool = False


def service(name: str, wanted: Wanted, old: Object | None, at: str) -> Object:
    """The Service to write: `old` with what is wanted changed, or a new one. `at` (RFC 3339) makes each deploy a revision."""
    if old is None and not wanted.image:
        raise BadUsage(f"service {name} does not exist yet: give its image with --image REF or --archive FILE")
    if old is None and wanted.no_traffic:
        raise BadUsage(f"service {name} does not exist yet: its first revision cannot be deployed with --no-traffic")
    made: Object = copy.deepcopy(old) if old else {"apiVersion": API_VERSION, "kind": "Service", "metadata": {"name": name}}
    made.pop("status", None)
    spec = made.setdefault("spec", {})
    template = spec.setdefault("template", {})
    meta = template.setdefault("metadata", {}) or {}
    template["metadata"] = meta
    meta.pop("name", None)
    if wanted.revision_suffix:
        meta["name"] = f"{name}-{wanted.revision_suffix}"
    _container(template, wanted)
    if wanted.tcp is not None:
        _tcp(made, wanted.tcp)
    _callers(made, wanted)
    inner = template["spec"]
    if wanted.concurrency is not None:
        inner["containerConcurrency"] = wanted.concurrency
    if wanted.timeout_s is not None:
        inner["timeoutSeconds"] = wanted.timeout_s
    notes = {**(meta.get("annotations") or {}), "client.knative.dev/updateTimestamp": at}
    if wanted.min_scale is not None:
        notes[SCALING + "min-scale"] = str(wanted.min_scale)
    if wanted.max_scale is not None:
        notes[SCALING + "max-scale"] = str(wanted.max_scale)
    if wanted.egress:
        notes[EGRESS] = wanted.egress
    if wanted.environment:
        notes[ENVIRONMENT] = wanted.environment
    meta["annotations"] = _edited(notes, wanted.annotations, "--annotation")
    if wanted.labels:
        meta["labels"] = _edited(meta.get("labels") or {}, wanted.labels, "--label")
    if wanted.no_traffic and old is not None:
        spec["traffic"] = pinned(old)
    return made


def _container(template: Object, wanted: Wanted) -> None:
    containers = template.setdefault("spec", {}).setdefault("containers", [{}])
    container = containers[0]
    if wanted.image:
        container["image"] = wanted.image
    if wanted.env:
        kept = {item["name"]: item for item in container.get("env") or []}
        named = {name: {"name": name, "value": value} for name, value in pairs(wanted.env, "--env", removable=True).items()}
        merged = {**kept, **named}
        container["env"] = [item for item in merged.values() if item.get("value") is not None or "valueFrom" in item]
    if wanted.secrets:
        kept = {item["name"]: item for item in container.get("env") or []}
        container["env"] = list({**kept, **{item["name"]: item for item in _secrets(wanted.secrets)}}.values())
    if wanted.pull_secrets:
        template["spec"]["imagePullSecrets"] = [{"name": name} for name in wanted.pull_secrets]
    if wanted.port is not None:
        kept_port = (container.get("ports") or [{}])[0]
        container["ports"] = [{**kept_port, "containerPort": wanted.port}]
    limits = {key: value for key, value in (("cpu", wanted.cpu), ("memory", wanted.memory)) if value}
    if limits:
        resources = container.setdefault("resources", {}) or {}
        container["resources"] = {**resources, "limits": {**(resources.get("limits") or {}), **limits}}
    if wanted.command:
        container["command"] = list(wanted.command)
    if wanted.args:
        container["args"] = list(wanted.args)


def _tcp(made: Object, port: int) -> None:
    """The annotation and the container port's name that make it a raw TCP service, or that do not any more."""
    meta, container = made["metadata"], made["spec"]["template"]["spec"]["containers"][0]
    notes = {key: value for key, value in (meta.get("annotations") or {}).items() if key != TCP_PORT}
    meta["annotations"] = {**notes, TCP_PORT: str(port)} if port else notes
    kept = {key: value for key, value in (container.get("ports") or [{}])[0].items() if key != "name"}
    container["ports"] = [{"containerPort": 8080, **kept, **({"name": "tcp"} if port else {})}]


def _callers(made: Object, wanted: Wanted) -> None:
    """The annotations of the service that say who may call it, and how often."""
    meta = made["metadata"]
    notes = dict(meta.get("annotations") or {})
    if wanted.ingress:
        notes[INGRESS] = wanted.ingress
    if wanted.unauthenticated is not None:
        notes[UNAUTHENTICATED] = "true" if wanted.unauthenticated else "false"
    if wanted.invokers:
        kept = dict.fromkeys(word.strip() for word in notes.get(INVOKERS, "").split(",") if word.strip())
        for word in wanted.invokers:
            kept.pop(word.removesuffix("-"), None)
            if not word.endswith("-"):
                kept[word] = None
        notes[INVOKERS] = ",".join(kept)
    if wanted.requests_per_s is not None:
        notes.pop(RATE, None)
        if wanted.requests_per_s:
            notes[RATE] = f"{wanted.requests_per_s:g}"
    if notes != (meta.get("annotations") or {}):
        meta["annotations"] = {key: value for key, value in notes.items() if value}


def _secrets(given: Sequence[str]) -> list[Object]:
    """Variables from `ENV=SECRET:KEY` words, also several with commas between. Raises BadUsage."""
    found = []
    for name, source in pairs([word for words in given for word in words.split(",")], "--set-secrets").items():
        secret, colon, key = (source or "").partition(":")
        if not secret or not colon or not key:
            raise BadUsage(f"--set-secrets {name}={source}: want ENV=SECRET:KEY")
        found.append({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
    return found


def pairs(given: Sequence[str], flag: str, *, removable: bool = False) -> dict[str, str | None]:
    """`K=V` words as a dict; with `removable`, `K-` means None. Raises BadUsage."""
    found: dict[str, str | None] = {}
    for word in given:
        key, equals, value = word.partition("=")
        if removable and not equals and key.endswith("-") and len(key) > 1:
            found[key[:-1]] = None
        elif not equals or not key:
            raise BadUsage(f"{flag} {word}: want KEY=VALUE" + (", or KEY- to remove it" if removable else ""))
        else:
            found[key] = value
    return found


def _edited(old: dict[str, str], given: Sequence[str], flag: str) -> dict[str, str]:
    merged = {**old, **pairs(given, flag, removable=True)}
    return {key: value for key, value in merged.items() if value is not None}


def pinned(old: Object) -> list[Object]:
    """The traffic of a service as it flows now, by revision name: what `latest` means may then change without moving it."""
    shares = (old.get("status") or {}).get("traffic") or (old.get("spec") or {}).get("traffic") or []
    latest = (old.get("status") or {}).get("latestReadyRevisionName", "")
    found = []
    for share in shares:
        name = share.get("revisionName") or latest
        if not name:
            raise BadUsage("--no-traffic: the service has no ready revision whose traffic could stay; deploy without it")
        kept = {key: share[key] for key in ("percent", "tag") if share.get(key) not in (None, "")}
        found.append({"revisionName": name, "latestRevision": False, **kept})
    return found


def traffic(
    old: Object, to: Sequence[str], tags: Sequence[str], untag: Sequence[str], to_latest: bool, known: Sequence[str] = ()
) -> list[Object]:
    """The new `spec.traffic`: shares from `--to REV=PERCENT` or `--to-latest`, tags kept, added or removed. Raises BadUsage."""
    if to and to_latest:
        raise BadUsage("--to and --to-latest exclude each other; `--to LATEST=40 --to REVISION=60` mixes them")
    now = (old.get("spec") or {}).get("traffic") or [{"latestRevision": True, "percent": 100}]
    shares: list[Object] = []
    if to_latest:
        shares = [{"latestRevision": True, "percent": 100}]
    elif to:
        wanted = pairs(to, "--to")
        if len(wanted) < len(to):
            raise BadUsage(f"--to {' --to '.join(to)}: a revision is named twice; give each once")
        for name, percent in wanted.items():
            if percent is None or not percent.isdigit() or int(percent) > 100:
                raise BadUsage(f"--to {name}={percent}: want a whole percentage from 0 to 100")
            shares.append({**_target(name, known, "--to"), "percent": int(percent)})
        total = sum(share["percent"] for share in shares)
        if total != 100:
            raise BadUsage(f"--to: the percentages sum to {total}; they must sum to 100")
    else:
        shares = [{k: v for k, v in share.items() if k not in ("tag", "url")} for share in now if share.get("percent")]
    kept = {share["tag"]: share for share in now if share.get("tag")}
    for tag in untag:
        if tag not in kept:
            raise BadUsage(f"--untag {tag}: no such tag; tags are: {', '.join(kept) or 'none'}")
        del kept[tag]
    tagged = {tag: {k: v for k, v in share.items() if k not in ("percent", "url", "tag")} for tag, share in kept.items()}
    tagged |= {tag: _target(name or "", known, "--tag") for tag, name in pairs(tags, "--tag").items()}
    return shares + [{**target, "tag": tag, "percent": 0} for tag, target in tagged.items()]


def _target(name: str, known: Sequence[str], flag: str) -> Object:
    if name in ("LATEST", "@latest", "latest"):
        return {"latestRevision": True}
    if known and name not in known:
        raise BadUsage(f"{flag}: no revision {name!r}; revisions are: {', '.join(known)}, or LATEST")
    return {"revisionName": name, "latestRevision": False}
