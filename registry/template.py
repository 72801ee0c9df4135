"""What a revision template may contain: one checker a field, read like a table. Bounds are in `Bounds`."""

from collections.abc import Mapping
from typing import Any

from registry import environments, objects, reach, rules, volumes
from registry.annotations import scale_values
from registry.bounds import Bounds
from registry.problem import (
    DATA_KEY,
    DNS_1035,
    DNS_LABEL,
    DNS_SUBDOMAIN,
    FORBIDDEN,
    Checker,
    Problem,
    Problems,
    boolean,
    closest,
    integer,
    label_map,
    list_of,
    mapping,
    matching,
    one_of,
    show,
    string_map,
    text,
)
from registry.quantity import byte_count, duration_s, milli_cores
from store.imageref import BadReference, parse

LEAST = {"memory": 4 << 20, "ephemeral-storage": 16 << 20}
"""What a limit must be at least, in bytes."""
HANDLERS = ("httpGet", "tcpSocket", "exec", "grpc")
RESERVED_ENV = ("PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION")

_POD = "an instance is one container and nothing beside it"
_HOST = "instances never share what is the host's"
_FIELDS = "only secretKeyRef and configMapKeyRef are; HOSTNAME, K_SERVICE and K_REVISION are set for you"
_CAPS = "instances always run with a minimal set of capabilities and no_new_privs"

_HTTP_HEADER = mapping({"name": text, "value": text}, required=("name",))


def _port(problems: Problems, value: Any, path: str) -> None:
    if isinstance(value, str):
        if value not in ("http1", "h2c", "tcp", "user-port"):
            problems.bad(path, value, "a number from 0 to 65535 (0: the container's own port), or the port's name")
        return
    integer(0, 65535)(problems, value, path)


_PROBE_FIELDS = mapping(
    {
        "httpGet": mapping(
            {
                "path": text,
                "port": _port,
                "host": text,
                "scheme": one_of("HTTP", "HTTPS"),
                "httpHeaders": list_of(_HTTP_HEADER, 64),
            }
        ),
        "tcpSocket": mapping({"port": _port, "host": text}),
        "exec": mapping({"command": list_of(text)}, required=("command",)),
        "grpc": mapping({"port": _port, "service": text}),
        "initialDelaySeconds": integer(0, 3600),
        "periodSeconds": integer(0, 3600),
        "timeoutSeconds": integer(1, 3600),
        "successThreshold": integer(1, 100),
        "failureThreshold": integer(1, 1000),
    },
    {"terminationGracePeriodSeconds": "instances get 10 s between SIGTERM and SIGKILL"},
)


def _probe(problems: Problems, value: Any, path: str) -> None:
    _PROBE_FIELDS(problems, value, path)
    if isinstance(value, dict):
        given = [handler for handler in HANDLERS if handler in value]
        if len(given) > 1:
            problems.bad(path, " and ".join(given), f"one of {', '.join(HANDLERS)}")
        kind = path.rpartition(".")[2]
        if kind != "readinessProbe" and value.get("successThreshold", 1) != 1:
            problems.bad(f"{path}.successThreshold", value["successThreshold"], f"1 for a {kind}")


_OBJECT = matching(DNS_SUBDOMAIN, "a DNS subdomain", 253)
_KEY_OF = mapping(
    {"name": _OBJECT, "key": matching(DATA_KEY, "letters, digits, '-', '_' and '.'", 253), "optional": boolean},
    required=("name", "key"),
)
_ALL_OF = mapping({"name": _OBJECT, "optional": boolean}, required=("name",))
_VALUE_FROM = mapping(
    {"secretKeyRef": _KEY_OF, "configMapKeyRef": _KEY_OF},
    dict.fromkeys(("fieldRef", "resourceFieldRef", "fileKeyRef"), _FIELDS),
)
_ENV_FROM = mapping({"prefix": text, "secretRef": _ALL_OF, "configMapRef": _ALL_OF})


def _one(problems: Problems, value: Any, path: str, *names: str) -> None:
    """Exactly one of `names` is given."""
    given = [name for name in names if isinstance(value, dict) and name in value]
    if isinstance(value, dict) and len(given) != 1:
        problems.bad(path, " and ".join(given) or "neither", f"exactly one of {' and '.join(names)}")


def _env_from(problems: Problems, value: Any, path: str) -> None:
    _ENV_FROM(problems, value, path)
    _one(problems, value, path, "secretRef", "configMapRef")
    prefix = value.get("prefix") if isinstance(value, dict) else None
    if isinstance(prefix, str) and ("=" in prefix or len(prefix) > 253):
        problems.bad(f"{path}.prefix", prefix, "at most 253 characters without '='")


def _value_from(problems: Problems, value: Any, path: str) -> None:
    _VALUE_FROM(problems, value, path)
    _one(problems, value, path, "secretKeyRef", "configMapKeyRef")


def _env(problems: Problems, value: Any, path: str) -> None:
    mapping({"name": text, "value": text, "valueFrom": _value_from}, required=("name",))(problems, value, path)
    name = value.get("name") if isinstance(value, dict) else None
    if isinstance(value, dict) and "value" in value and "valueFrom" in value:
        problems.bad(path, "value and valueFrom", "one of them")
    if not isinstance(name, str):
        return
    if not name or "=" in name or len(name) > 1024:
        problems.bad(f"{path}.name", name, "1 to 1024 characters without '='")
    if name in RESERVED_ENV:
        cure = "; set ports[0].containerPort instead" if name == "PORT" else ""
        problems.bad(f"{path}.name", name, f"any name but {', '.join(RESERVED_ENV)}, which are set for you{cure}", FORBIDDEN)


def _ports(problems: Problems, value: Any, path: str) -> None:
    port = mapping(
        {"name": one_of("http1", "h2c", "tcp"), "containerPort": integer(1, 65535), "protocol": one_of("TCP")},
        {"hostPort": _HOST, "hostIP": _HOST},
        required=("containerPort",),
    )
    list_of(port)(problems, value, path)
    if isinstance(value, list) and len(value) > 1:
        problems.bad(path, f"{len(value)} ports", "at most one port")


def _resources(problems: Problems, value: Any, path: str) -> None:
    seen: dict[tuple[str, str], int] = {}
    parsers = {"cpu": milli_cores, "memory": byte_count, "ephemeral-storage": byte_count}

    def amounts(which: str) -> Checker:
        def check(problems: Problems, value: Any, path: str) -> None:
            if not isinstance(value, dict):
                problems.bad(path, value, "a mapping with cpu, memory and ephemeral-storage")
                return
            for name, amount in value.items():
                if name not in parsers:
                    problems.bad(f"{path}.{name}", name, f"cpu, memory and ephemeral-storage{closest(str(name), parsers)}")
                    continue
                try:
                    number = parsers[name](
                        amount if isinstance(amount, str) else str(amount) if type(amount) in (int, float) else ""
                    )
                except ValueError:
                    problems.bad(
                        f"{path}.{name}", amount, "a quantity like 250m or 1 for cpu, 512Mi or 1Gi for memory and storage"
                    )
                    continue
                least = LEAST.get(name, 1) if which == "limits" else 0
                if number < least:
                    unit = f"{least >> 20}Mi" if least > 1 else str(least)
                    problems.bad(f"{path}.{name}", amount, f"at least {unit}")
                seen[which, name] = number

        return check

    mapping({"limits": amounts("limits"), "requests": amounts("requests")}, {"claims": _POD})(problems, value, path)
    for name in parsers:
        request, limit = seen.get(("requests", name)), seen.get(("limits", name))
        if request is not None and limit is not None and request > limit:
            problems.bad(f"{path}.requests.{name}", value["requests"][name], f"at most the limit, {value['limits'][name]}")


def _security(problems: Problems, value: Any, path: str) -> None:
    mapping(
        {
            "runAsUser": integer(0, 2**31 - 1),
            "runAsGroup": integer(0, 2**31 - 1),
            "runAsNonRoot": boolean,
            "allowPrivilegeEscalation": boolean,
            "privileged": boolean,
            "seccompProfile": mapping({"type": one_of("RuntimeDefault")}),
        },
        {"capabilities": _CAPS, "readOnlyRootFilesystem": "the root is a writable layer of its own", "procMount": _HOST},
    )(problems, value, path)
    if not isinstance(value, dict):
        return
    for name in ("allowPrivilegeEscalation", "privileged"):
        if value.get(name) is True:
            problems.bad(f"{path}.{name}", True, "false: instances run with no_new_privs and are never privileged")
    if value.get("runAsNonRoot") is True and value.get("runAsUser", 0) == 0:
        problems.bad(f"{path}.runAsNonRoot", True, "true together with a runAsUser above 0")
    if "runAsGroup" in value and "runAsUser" not in value:
        problems.bad(f"{path}.runAsGroup", value["runAsGroup"], "a group together with runAsUser")


CONTAINER = mapping(
    {
        "name": matching(DNS_LABEL, "a DNS label"),
        "image": text,
        "imagePullPolicy": one_of("Always", "IfNotPresent", "Never"),
        "command": list_of(text),
        "args": list_of(text),
        "workingDir": text,
        "env": list_of(_env),
        "envFrom": list_of(_env_from, 100),
        "ports": _ports,
        "resources": _resources,
        "readinessProbe": _probe,
        "livenessProbe": _probe,
        "startupProbe": _probe,
        "securityContext": _security,
        "volumeMounts": volumes.mounts,
    },
    {
        "volumeDevices": _HOST,
        "lifecycle": "handle SIGTERM in the program instead",
        "stdin": "an instance's input is empty",
        "stdinOnce": "an instance's input is empty",
        "tty": "an instance has no terminal",
        "resizePolicy": _POD,
        "restartPolicy": "an instance that ends is replaced",
        "terminationMessagePath": "the last log lines are reported instead",
        "terminationMessagePolicy": "the last log lines are reported instead",
    },
    required=("image",),
)


def _containers(problems: Problems, value: Any, path: str) -> None:
    list_of(CONTAINER)(problems, value, path)
    if isinstance(value, list):
        if not value:
            problems.missing(path, "exactly one container")
        elif len(value) > 1:
            problems.bad(path, f"{len(value)} containers", "exactly one container: sidecars are not supported")
        for index, container in enumerate(value):
            image = container.get("image") if isinstance(container, dict) else None
            if isinstance(image, str):
                _image(problems, image, f"{path}[{index}].image")


def _image(problems: Problems, value: str, path: str) -> None:
    try:
        parse(value)
    except BadReference as error:
        problems.append(Problem(path, f"got {show(value)}: {error}"))


def _toleration(problems: Problems, value: Any, path: str) -> None:
    mapping(
        {"key": text, "operator": one_of("Equal", "Exists"), "value": text, "effect": one_of("NoSchedule")},
        {"tolerationSeconds": "instances that run on a node are not sent away by a taint"},
    )(problems, value, path)
    if not isinstance(value, dict):
        return
    exists = value.get("operator") == "Exists"
    if not exists and not value.get("key"):
        problems.missing(f"{path}.key", "a taint's key, or operator Exists for any")
    if exists and value.get("value"):
        problems.bad(f"{path}.value", value["value"], "no value with operator Exists")


_PLACED = (
    "nodeName", "affinity", "topologySpreadConstraints", "schedulerName",
    "priorityClassName", "priority", "preemptionPolicy", "overhead",
)  # fmt: skip
_POD_REFUSED = {
    **dict.fromkeys(
        ("initContainers", "ephemeralContainers", "restartPolicy", "shareProcessNamespace", "securityContext"), _POD
    ),
    **dict.fromkeys(("hostNetwork", "hostPID", "hostIPC", "hostUsers", "hostAliases", "hostname", "subdomain"), _HOST),
    **dict.fromkeys(_PLACED, "placement is decided by nodeSelector, tolerations, room, image and spread"),
    "terminationGracePeriodSeconds": "instances get 10 s between SIGTERM and SIGKILL",
    "dnsPolicy": "instances get the node's resolvers",
    "dnsConfig": "instances get the node's resolvers",
    "automountServiceAccountToken": "there are no service account tokens",
    "serviceAccount": "give serviceAccountName",
}


def _spec(bounds: Bounds) -> Checker:
    fields = mapping(
        {
            "containers": _containers,
            "containerConcurrency": integer(0, bounds.container_concurrency_max),
            "timeoutSeconds": integer(0, bounds.timeout_max_s),
            "responseStartTimeoutSeconds": integer(0, bounds.timeout_max_s),
            "idleTimeoutSeconds": integer(0, bounds.timeout_max_s),
            "serviceAccountName": matching(DNS_SUBDOMAIN, "a DNS subdomain", 253),
            "imagePullSecrets": list_of(mapping({"name": matching(DNS_SUBDOMAIN, "a DNS subdomain", 253)}, required=("name",))),
            "enableServiceLinks": boolean,
            "nodeSelector": label_map,
            "tolerations": list_of(_toleration, 32),
            "runtimeClassName": one_of(*environments.CLASSES),
            "volumes": volumes.volumes,
        },
        _POD_REFUSED,
        required=("containers",),
    )

    def check(problems: Problems, value: Any, path: str) -> None:
        fields(problems, value, path)
        if not isinstance(value, dict):
            return
        volumes.check(problems, value, path)
        whole = value.get("timeoutSeconds") or bounds.timeout_default_s
        for name in ("responseStartTimeoutSeconds", "idleTimeoutSeconds"):
            part = value.get(name)
            if isinstance(part, int) and isinstance(whole, int) and part > whole:
                problems.bad(f"{path}.{name}", part, f"at most timeoutSeconds, which is {whole}")

    return check


def _template_annotations(problems: Problems, value: Any, path: str) -> None:
    string_map(problems, value, path)
    if not isinstance(value, Mapping):
        return
    scale_values(value, problems, path)
    rules.check(problems, value, path, of="revision")
    reach.check_revision(problems, value, path)
    if objects.ANNOTATION_TCP_PORT in value:
        where = f"{path}[{objects.ANNOTATION_TCP_PORT}]"
        problems.forbid(where, "a port belongs to the service, not to a revision: put it under metadata.annotations")
    largest = value.get(objects.ANNOTATION_MAX_BODY)
    if largest is not None:
        try:
            fits = byte_count(str(largest)) >= 1
        except ValueError:
            fits = False
        if not fits:
            problems.bad(f"{path}[{objects.ANNOTATION_MAX_BODY}]", largest, "a quantity of bytes, at least 1, like 10Mi")
    for name in (objects.ANNOTATION_PARK, objects.ANNOTATION_NO_GC, objects.ANNOTATION_SERVER_TIMING):
        if name in value and value[name] not in ("true", "false"):
            problems.bad(f"{path}[{name}]", value[name], '"true" or "false"')
    deadline = value.get(objects.ANNOTATION_PROGRESS_DEADLINE)
    if deadline is not None:
        try:
            fits = 1 <= duration_s(str(deadline)) <= 86_400
        except ValueError:
            fits = False
        if not fits:
            problems.bad(f"{path}[{objects.ANNOTATION_PROGRESS_DEADLINE}]", deadline, "a duration from 1s to 24h, like 600s")


def template(bounds: Bounds, parent: str) -> Checker:
    """Checks `spec.template` of a Service or Configuration called `parent`."""

    def name(problems: Problems, value: Any, path: str) -> None:
        before = len(problems)
        matching(DNS_1035, "a DNS label that begins with a letter")(problems, value, path)
        if len(problems) == before and parent and (not value.startswith(f"{parent}-") or value == f"{parent}-"):
            problems.bad(path, value, f"a name that begins with '{parent}-'")

    fields = mapping(
        {
            "metadata": mapping({"name": name, "labels": label_map, "annotations": _template_annotations}),
            "spec": _spec(bounds),
        },
        required=("spec",),
    )

    def check(problems: Problems, value: Any, path: str) -> None:
        fields(problems, value, path)
        if isinstance(value, dict):
            environments.check(problems, objects.annotations_of(value), value.get("spec"), path)

    return check
