"""What is refused, with the path, what was got and what is allowed; all at once."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import defaults, objects
from registry.bounds import Bounds
from registry.compile import compile_revision
from registry.problem import Problems
from registry.validate import renamed_template, validate
from store.model import EnvFrom, EnvRef

BOUNDS = Bounds()
KINDS = (objects.SERVICE, objects.CONFIGURATION, objects.ROUTE)


def service(container: Any = None, *, spec: Any = None, traffic: Any = None, meta: Any = None, annotations: Any = None) -> Any:
    template: dict[str, Any] = {"spec": {"containers": [{"image": "hello:v1", **(container or {})}], **(spec or {})}}
    if annotations is not None:
        template["metadata"] = {"annotations": annotations}
    body = {"metadata": {"name": "hello", **(meta or {})}, "spec": {"template": template}}
    if traffic is not None:
        body["spec"]["traffic"] = traffic
    return body


def check(body: Any, kind: objects.Kind = objects.SERVICE) -> Problems:
    return validate(kind, defaults.prune(body), BOUNDS)


def said(body: Any, kind: objects.Kind = objects.SERVICE) -> str:
    return "\n".join(map(str, check(body, kind)))


C = "spec.template.spec.containers[0]"
TCP = objects.ANNOTATION_TCP_PORT


def test_a_plain_service_is_fine() -> None:
    assert check(service()) == []


def test_everything_a_client_may_say_is_fine() -> None:
    full = service(
        {
            "name": "user-container",
            "command": ["/bin/app"],
            "args": ["", "-v"],
            "workingDir": "/srv",
            "env": [
                {"name": "A", "value": "b"},
                {"name": "P", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
                {"name": "M", "valueFrom": {"configMapKeyRef": {"name": "app", "key": "mode", "optional": True}}},
                {"name": "EMPTY"},
            ],
            "envFrom": [{"prefix": "X_", "configMapRef": {"name": "app"}}, {"secretRef": {"name": "all", "optional": True}}],
            "ports": [{"name": "h2c", "containerPort": 9000, "protocol": "TCP"}],
            "resources": {"limits": {"cpu": "1", "memory": "512Mi"}, "requests": {"cpu": "250m", "memory": "128Mi"}},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 0, "httpHeaders": [{"name": "A", "value": "b"}]}},
            "livenessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 5},
            "startupProbe": {"grpc": {"port": 9000, "service": "x"}},
            "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "runAsNonRoot": True, "allowPrivilegeEscalation": False},
            "imagePullPolicy": "Always",
        },
        spec={"containerConcurrency": 10, "timeoutSeconds": 60, "idleTimeoutSeconds": 30, "serviceAccountName": "default"},
        traffic=[{"latestRevision": True, "percent": 90}, {"revisionName": "hello-00001", "percent": 10, "tag": "old"}],
        annotations={"autoscaling.knative.dev/minScale": "1", "autoscaling.knative.dev/max-scale": "5", "other.org/x": "y"},
    )
    assert check(full) == []
    canonical = defaults.canonical(objects.SERVICE, full["spec"], BOUNDS)
    made = compile_revision(
        {
            "metadata": {"name": "hello-00001", "namespace": "p", "annotations": {"autoscaling.knative.dev/minScale": "1"}},
            "spec": canonical["template"]["spec"],
        },
        "docker.io/library/hello@sha256:" + "0" * 64,
        BOUNDS,
    )
    assert (made.port, made.protocol, made.cpu_limit_m, made.cpu_request_m) == (9000, "h2c", 1000, 250)
    assert (made.memory_limit_bytes, made.user, made.container_concurrency) == (512 * 2**20, "1000:1000", 10)
    assert made.readiness_probe.kind == "http"
    assert made.readiness_probe.period_s == 0
    assert made.liveness_probe is not None
    assert made.liveness_probe.command == ["true"]
    assert made.env == [("A", "b"), ("EMPTY", "")]
    assert made.env_refs == [
        EnvRef(name="P", secret="db", key="password", after=1),
        EnvRef(name="M", config="app", key="mode", optional=True, after=1),
    ]
    assert made.env_from == [EnvFrom(config="app", prefix="X_"), EnvFrom(secret="all", optional=True)]
    assert made.scale.min_scale == 1


def test_all_that_is_wrong_is_said_at_once() -> None:
    body = service(
        {"ports": [{"containerPort": 99999}, {"containerPort": 1}], "env": [{"name": "PORT"}], "iamge": "x"},
        spec={"containerConcurrency": 1001, "timeoutSeconds": "5"},
        meta={"name": "Hello_World"},
    )
    paths = {p.path for p in check(body)}
    assert paths >= {
        "metadata.name",
        f"{C}.ports",
        f"{C}.ports[0].containerPort",
        f"{C}.env[0].name",
        f"{C}.iamge",
        "spec.template.spec.containerConcurrency",
        "spec.template.spec.timeoutSeconds",
    }


@pytest.mark.parametrize(
    ("body", "path", "words"),
    [
        (service({"iamge": "x"}), f"{C}.iamge", "did you mean 'image'"),
        (service({"image": ""}), f"{C}.image", "required"),
        (service({"image": "a b"}), f"{C}.image", "got 'a b'"),
        (service({"image": "Hello:v1"}), f"{C}.image", "got 'Hello:v1'"),
        (service({"image": "hello@sha256:12"}), f"{C}.image", "64"),
        (service({"ports": [{"name": "grpc", "containerPort": 1}]}), f"{C}.ports[0].name", "http1 or h2c or tcp"),
        (service({"ports": [{"name": "tcp", "containerPort": 1}]}), f"metadata.annotations[{TCP}]", "required"),
        (service(meta={"name": "hello", "annotations": {TCP: "5432"}}), f"{C}.ports[0].name", "tcp, as the service has"),
        (service(meta={"name": "hello", "annotations": {TCP: "80"}}), f"metadata.annotations[{TCP}]", "1024 to 65535"),
        (service(annotations={TCP: "5432"}), f"spec.template.metadata.annotations[{TCP}]", "belongs to the service"),
        (service({"ports": [{"containerPort": 8080, "hostPort": 80}]}), f"{C}.ports[0].hostPort", "not supported"),
        (service({"stdin": True}), f"{C}.stdin", "not supported"),
        (service({"tty": True}), f"{C}.tty", "not supported"),
        (
            service({"lifecycle": {"preStop": {}}, "volumeMounts": [{"name": "x"}]}),
            f"{C}.volumeMounts[0].name",
            "the name of one of volumes",
        ),
        (
            service({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]}),
            f"{C}.env[0].valueFrom.fieldRef",
            "not supported",
        ),
        (service({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}]}), "secretKeyRef.key", "is required"),
        (
            service({"env": [{"name": "A", "value": "b", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}),
            f"{C}.env[0]",
            "one of them",
        ),
        (service({"envFrom": [{"prefix": "A_"}]}), f"{C}.envFrom[0]", "exactly one of secretRef and configMapRef"),
        (service({"envFrom": [{"secretRef": {"name": "No_Name"}}]}), f"{C}.envFrom[0].secretRef.name", "a DNS subdomain"),
        (service({"securityContext": {"runAsUser": -10}}), f"{C}.securityContext.runAsUser", "got -10"),
        (service({"securityContext": {"privileged": True}}), f"{C}.securityContext.privileged", "never privileged"),
        (service({"resources": {"limits": {"memory": "1"}}}), f"{C}.resources.limits.memory", "at least 4Mi"),
        (service({"resources": {"limits": {"cpu": "abc"}}}), f"{C}.resources.limits.cpu", "quantity"),
        (
            service({"resources": {"limits": {"nvidia.com/gpu": "1"}}}),
            f"{C}.resources.limits.nvidia.com/gpu",
            "cpu, memory and ephemeral-storage",
        ),
        (
            service({"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}}),
            f"{C}.resources.requests.cpu",
            "at most the limit",
        ),
        (service({"readinessProbe": {"httpGet": {}, "tcpSocket": {}}}), f"{C}.readinessProbe", "one of"),
        (service({"livenessProbe": {"tcpSocket": {}, "successThreshold": 2}}), f"{C}.livenessProbe.successThreshold", "1 for"),
        (service(spec={"volumes": [{"name": "v"}]}), "spec.template.spec.volumes[0]", "exactly one of secret and configMap"),
        (service(spec={"hostNetwork": True}), "spec.template.spec.hostNetwork", "not supported"),
        (service(spec={"serviceAccountName": "foo@bar.baz"}), "spec.template.spec.serviceAccountName", "foo@bar.baz"),
        (service(spec={"timeoutSeconds": 3601}), "spec.template.spec.timeoutSeconds", "from 0 to 3600"),
        (
            service(spec={"idleTimeoutSeconds": 301}),
            "spec.template.spec.idleTimeoutSeconds",
            "at most timeoutSeconds, which is 300",
        ),
        (
            service(spec={"containers": [{"image": "a"}, {"image": "b"}]}),
            "spec.template.spec.containers",
            "sidecars are not supported",
        ),
        (service(traffic=[{"latestRevision": True, "percent": 90}]), "spec.traffic", "90 = 90"),
        (service(traffic=[{"percent": 60}, {"revisionName": "hello-1", "percent": 50}]), "spec.traffic", "60 + 50 = 110"),
        (
            service(traffic=[{"percent": 100, "tag": "a"}, {"percent": 0, "tag": "a"}]),
            "spec.traffic[1].tag",
            "given twice",
        ),
        (service(traffic=[{"percent": 100, "tag": "A b"}]), "spec.traffic[0].tag", "DNS label"),
        (service(traffic=[{"percent": 100, "tag": "t" * 60}]), "spec.traffic[0].tag", "at most 63"),
        (
            service(traffic=[{"revisionName": "hello-1", "latestRevision": True, "percent": 100}]),
            "spec.traffic[0].latestRevision",
            "beside revisionName",
        ),
        (service(traffic=[{"latestRevision": False, "percent": 100}]), "spec.traffic[0].revisionName", "required"),
        (service(traffic=[{"configurationName": "x", "percent": 100}]), "spec.traffic[0].configurationName", "latestRevision"),
        (service(annotations={"autoscaling.knative.dev/min-scale": "-1"}), "min-scale", "got '-1'"),
        (service(annotations={"autoscaling.knative.dev/minscael": "1"}), "minscael", "did you mean 'min-scale'"),
        (service(annotations={"autoscaling.knative.dev/window": "5s"}), "window", "from 6s to 3600s"),
        (service(annotations={"autoscaling.knative.dev/window": "61500ms"}), "window", "whole seconds"),
        (service(annotations={"autoscaling.knative.dev/metric": "gpu"}), "metric", "concurrency or rps or cpu or memory"),
        (
            service(
                annotations={
                    "autoscaling.knative.dev/class": "hpa.autoscaling.knative.dev",
                    "autoscaling.knative.dev/metric": "rps",
                }
            ),
            "metric",
            "cpu or memory with class hpa",
        ),
        (service(annotations={"ebb.dev/schedule": "8 min=1 for=1h"}), "ebb.dev/schedule", "five fields as in cron"),
        (service(annotations={"autoscaling.knative.dev/initial-scale": "-1"}), "initial-scale", "from 0 to"),
        (
            service(annotations={"autoscaling.knative.dev/min-scale": "3", "autoscaling.knative.dev/maxScale": "2"}),
            "min-scale",
            "at most max-scale, which is 2",
        ),
        (service(annotations={"ebb.dev/max-body": "big"}), "ebb.dev/max-body", "like 10Mi"),
        (service(annotations={"ebb.dev/park": "no"}), "ebb.dev/park", '"true" or "false"'),
        (service(annotations={"a": 1}), "annotations[a]", "put numbers and true/false in quotes"),
        (service(annotations={"serving.knative.dev/progress-deadline": "soon"}), "progress-deadline", "duration"),
        (
            service(meta={"annotations": {"autoscaling.knative.dev/min-scale": "1"}}),
            "metadata.annotations[autoscaling.knative.dev/min-scale]",
            "spec.template.metadata.annotations",
        ),
        (service(meta={"labels": {"networking.knative.dev/visibility": "x"}}), "visibility", "cluster-local"),
        (service() | {"spek": {"a": 1}}, "spek", "did you mean 'spec'"),
        (service() | {"apiVersion": "v2"}, "apiVersion", "serving.knative.dev/v1"),
        ([], "", "a Service as a JSON or YAML mapping"),
        ({"spec": 1}, "spec", "a mapping"),
    ],
)
def test_a_fault_is_named_with_its_path_and_what_is_allowed(body: Any, path: str, words: str) -> None:
    found = [p for p in check(body) if path in p.path]
    assert found, said(body)
    assert any(words in p.message for p in found), said(body)


def test_a_route_names_exactly_one_thing_for_each_target() -> None:
    def route(*targets: Any) -> Any:
        return {"metadata": {"name": "r"}, "spec": {"traffic": list(targets)}}

    assert check(route({"configurationName": "c", "percent": 100}), objects.ROUTE) == []
    assert "exactly one of" in said(route({"percent": 100}), objects.ROUTE)
    assert "exactly one of" in said(route({"configurationName": "c", "revisionName": "r", "percent": 100}), objects.ROUTE)


def test_a_revision_name_must_begin_with_the_services_and_change_with_the_template() -> None:
    body = service()
    body["spec"]["template"]["metadata"] = {"name": "other-v1"}
    assert "begins with 'hello-'" in said(body)
    body["spec"]["template"]["metadata"] = {"name": "hello-v1"}
    assert check(body) == []
    old = {"spec": defaults.canonical(objects.SERVICE, body["spec"], BOUNDS)}
    body["spec"]["template"]["spec"]["containers"][0]["image"] = "hello:v2"
    new = {"spec": defaults.canonical(objects.SERVICE, body["spec"], BOUNDS)}
    assert renamed_template(objects.SERVICE, old, new)
    assert not renamed_template(objects.SERVICE, old, old)


def test_a_long_value_is_cut_in_the_message() -> None:
    assert len(said(service({"imagePullPolicy": "x" * 10_000}))) < 300


# -- properties ---------------------------------------------------------------------------------------------------------------

NAMES = """spec template metadata containers image env name value ports containerPort resources limits requests cpu memory traffic
percent tag revisionName latestRevision annotations labels readinessProbe tcpSocket httpGet port timeoutSeconds
containerConcurrency securityContext runAsUser autoscaling.knative.dev/window x"""
WORDS = st.sampled_from(NAMES.split())
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 2**40),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.sampled_from(["1", "5s", "hello"]),
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=5), max_leaves=25
)


@settings(max_examples=150, deadline=None)
@given(JSON, st.sampled_from(KINDS))
def test_validation_never_raises_and_every_fault_has_words(body: Any, kind: objects.Kind) -> None:
    for wrapped in (body, {"metadata": {"name": "hello"}, "spec": body}, service(body if isinstance(body, dict) else {})):
        for problem in check(wrapped, kind):
            assert problem.message
            assert problem.path or not isinstance(wrapped, dict)


@settings(max_examples=150, deadline=None)
@given(JSON, st.sampled_from(KINDS))
def test_the_canonical_form_of_a_canonical_form_is_itself(body: Any, kind: objects.Kind) -> None:
    for spec in (body, service(body if isinstance(body, dict) else {})["spec"]):
        once = defaults.canonical(kind, spec, BOUNDS)
        assert defaults.canonical(kind, once, BOUNDS) == once


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([None, "creationTimestamp", "name", "resources", "env", "readinessProbe"]), max_size=5))
def test_empty_things_do_not_change_the_canonical_form(added: list[str | None]) -> None:
    noisy = service()
    container = noisy["spec"]["template"]["spec"]["containers"][0]
    for name in added:
        if name == "creationTimestamp":
            noisy["spec"]["template"]["metadata"] = {name: None}
        elif name is not None:
            container[name] = {"resources": {}, "env": [], "name": "", "readinessProbe": None}[name]
    plain = defaults.canonical(objects.SERVICE, service()["spec"], BOUNDS)
    assert defaults.canonical(objects.SERVICE, noisy["spec"], BOUNDS) == plain
