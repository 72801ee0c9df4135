"""A Revision object and its resolved image → the typed `Revision` that the other parts run."""

from calendar import timegm
from functools import lru_cache
from time import strptime
from typing import Any

from registry import environments, objects, reach, rules, volumes
from registry.annotations import scale_spec
from registry.bounds import Bounds
from registry.objects import Object
from registry.quantity import byte_count, duration_s, milli_cores
from store.model import EnvFrom, EnvRef, Probe, Revision
from store.scaling import Toleration

_HIDDEN_LABELS = (objects.LABEL_ROUTING_STATE,)


def compile_revision(obj: Object, image: str, bounds: Bounds) -> Revision:
    """`obj` is a Revision whose spec is canonical and valid; `image` is by digest."""
    meta, spec = obj["metadata"], obj["spec"]
    container = spec["containers"][0]
    port = (container.get("ports") or [{}])[0]
    resources = container.get("resources", {})
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    labels, annotations = objects.labels_of(obj), objects.annotations_of(obj)
    return Revision(
        project=meta["namespace"],
        name=meta["name"],
        service=labels.get(objects.LABEL_SERVICE, ""),
        configuration=labels.get(objects.LABEL_CONFIGURATION, ""),
        created_at=wall_s(meta.get("creationTimestamp", "")),
        image=image,
        image_name=container["image"],
        pull_secrets=[secret["name"] for secret in spec.get("imagePullSecrets", [])],
        command=container.get("command", []),
        args=container.get("args", []),
        env=[(item["name"], item.get("value", "")) for item in container.get("env", []) if "valueFrom" not in item],
        env_refs=_env_refs(container.get("env", [])),
        env_from=[_env_from(item) for item in container.get("envFrom", [])],
        volumes=volumes.compiled(spec),
        working_dir=container.get("workingDir", ""),
        user=_user(container.get("securityContext", {})),
        port=port.get("containerPort", 8080),
        protocol=port.get("name", "http1"),
        container_concurrency=spec.get("containerConcurrency", 0),
        timeout_s=spec.get("timeoutSeconds") or bounds.timeout_default_s,
        response_start_timeout_s=spec.get("responseStartTimeoutSeconds", 0),
        idle_timeout_s=spec.get("idleTimeoutSeconds", 0),
        max_body_bytes=byte_count(annotations.get(objects.ANNOTATION_MAX_BODY, "0")),
        server_timing=annotations.get(objects.ANNOTATION_SERVER_TIMING) == "true",
        cpu_request_m=milli_cores(str(requests.get("cpu", 0))),
        cpu_limit_m=milli_cores(str(limits.get("cpu", 0))),
        memory_request_bytes=byte_count(str(requests.get("memory", 0))),
        memory_limit_bytes=byte_count(str(limits.get("memory", 0))),
        disk_request_bytes=byte_count(str(requests.get("ephemeral-storage", limits.get("ephemeral-storage", 0)))),
        disk_limit_bytes=byte_count(str(limits.get("ephemeral-storage", 0))),
        node_selector=spec.get("nodeSelector", {}),
        tolerations=[
            Toleration(key=each.get("key", ""), value=each.get("value", ""), exists=each.get("operator") == "Exists")
            for each in spec.get("tolerations", [])
        ],
        startup_probe=_probe(container.get("startupProbe"), 10),
        readiness_probe=_probe(container.get("readinessProbe"), 0) or Probe(period_s=0),
        liveness_probe=_probe(container.get("livenessProbe"), 10),
        scale=scale_spec(annotations),
        progress_deadline_s=progress_deadline_s(obj, bounds),
        runtime=environments.runtime_of(annotations, spec),
        egress=reach.egress_of(annotations),
        profile=environments.profile_of(annotations),
        parkable=annotations.get(objects.ANNOTATION_PARK) != "false",
        session_affinity=rules.session_affinity(annotations),
        labels={name: value for name, value in labels.items() if name not in _HIDDEN_LABELS},
    )


def _env_refs(env: list[Object]) -> list[EnvRef]:
    found: list[EnvRef] = []
    for index, item in enumerate(env):
        source = item.get("valueFrom")
        if not source:
            continue
        kind, ref = next(iter(source.items()))
        field = "secret" if kind == "secretKeyRef" else "config"
        where: Object = {field: ref["name"], "key": ref["key"], "optional": ref.get("optional", False)}
        found.append(EnvRef(name=item["name"], after=index - len(found), **where))
    return found


def _env_from(item: Object) -> EnvFrom:
    kind = "secretRef" if "secretRef" in item else "configMapRef"
    field: Object = {"secret" if kind == "secretRef" else "config": item[kind]["name"]}
    return EnvFrom(prefix=item.get("prefix", ""), optional=item[kind].get("optional", False), **field)


def progress_deadline_s(obj: Object, bounds: Bounds) -> float:
    """How long a revision may take to become Ready, from its annotation or the default."""
    text = objects.annotations_of(obj).get(objects.ANNOTATION_PROGRESS_DEADLINE)
    return duration_s(text) if text else bounds.progress_deadline_s


@lru_cache(4096)  # Every plan asks for those of all revisions again, and reading one takes 20 µs.
def wall_s(timestamp: str) -> float:
    """RFC 3339 in whole seconds, UTC, as wall seconds; 0 when it is none."""
    try:
        return float(timegm(strptime(timestamp[:19] + "Z", "%Y-%m-%dT%H:%M:%SZ")))
    except ValueError:
        return 0.0


def _user(security: Object) -> str:
    if "runAsUser" not in security:
        return ""
    user = str(security["runAsUser"])
    return f"{user}:{security['runAsGroup']}" if "runAsGroup" in security else user


def _probe(value: Any, period_s: float) -> Probe | None:
    if not value:
        return None
    kind = next(handler for handler in ("httpGet", "tcpSocket", "exec", "grpc") if handler in value)
    how = value[kind]
    port = how.get("port", 0)
    return Probe(
        kind={"httpGet": "http", "tcpSocket": "tcp"}.get(kind, kind),
        port=port if isinstance(port, int) else 0,
        path=how.get("path", "/"),
        host=how.get("host", ""),
        scheme=how.get("scheme", "HTTP").lower(),
        headers=[(header["name"], header.get("value", "")) for header in how.get("httpHeaders", [])],
        service=how.get("service", ""),
        command=how.get("command", []),
        initial_delay_s=value.get("initialDelaySeconds", 0),
        period_s=value.get("periodSeconds", period_s),
        timeout_s=value.get("timeoutSeconds", 1),
        success_threshold=value.get("successThreshold", 1),
        failure_threshold=value.get("failureThreshold", 3),
    )
