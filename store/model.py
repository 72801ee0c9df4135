"""The typed model: what is kept in etcd and carried on NATS, as frozen structs.

How they are written and read is in `store/schema.py`.

A `RevisionKey` is `"<project>/<revision>"`. Times `*_at` are wall seconds since the epoch; durations are `*_s`.
Counts of CPU are milli-cores (`cpu_m`), of memory bytes.
"""

from typing import Any

import msgspec

from store.lifecycle import Phase
from store.member import Member as Member
from store.scaling import ScaleSpec as ScaleSpec
from store.scaling import Taint, Toleration
from store.schema import V1 as V1
from store.schema import Model as Model
from store.schema import decode as decode
from store.schema import encode as encode
from store.volumes import Volume

RevisionKey = str
GVISOR = "gvisor"


# -- what a user asked for, as the other parts need it ------------------------------------------------------------------------


class Probe(Model, frozen=True, kw_only=True):
    """One probe, Kubernetes' meanings. `kind`: tcp, http, grpc or exec. `period_s` 0 is as fast as is sensible."""

    kind: str = "tcp"
    port: int = 0
    """0: the revision's own port."""
    path: str = "/"
    host: str = ""
    scheme: str = "http"
    headers: list[tuple[str, str]] = []
    service: str = ""
    """gRPC health service's name."""
    command: list[str] = []
    initial_delay_s: float = 0
    period_s: float = 10
    timeout_s: float = 1
    success_threshold: int = 1
    failure_threshold: int = 3


class EnvRef(Model, frozen=True, kw_only=True):
    """A variable whose value is in a Secret or ConfigMap. It comes after the first `after` of `Revision.env`."""

    name: str
    secret: str = ""
    """The Secret's name, or empty."""
    config: str = ""
    """The ConfigMap's name, or empty."""
    key: str
    optional: bool = False
    after: int = 0


class EnvFrom(Model, frozen=True, kw_only=True):
    """All keys of a Secret or ConfigMap as variables, before all others."""

    secret: str = ""
    config: str = ""
    prefix: str = ""
    optional: bool = False


class Values(Model, frozen=True, kw_only=True):
    """A Secret or ConfigMap as it is stored. Of a Secret everything but names, type and labels is in `sealed`."""

    v: int = V1
    metadata: dict[str, Any]
    """Kubernetes' metadata, without what is private."""
    type: str = ""
    immutable: bool = False
    names: list[str] = []
    """A Secret's keys."""
    sealed: str = ""
    """A Secret's `Private`, under a key that is not in etcd (store/seal.py)."""
    data: dict[str, str] = {}
    """A ConfigMap's text."""
    binary: dict[str, bytes] = {}
    """A ConfigMap's other values."""


class Private(Model, frozen=True, kw_only=True):
    """What is sealed of a Secret: its values, and annotations that repeat them (kubectl's last-applied-configuration)."""

    data: dict[str, bytes] = {}
    annotations: dict[str, str] = {}


class Revision(Model, frozen=True, kw_only=True):
    """An immutable snapshot of a service's template, with everything defaulted and resolved. Written once, when minted."""

    v: int = V1
    project: str
    name: str
    service: str = ""
    configuration: str = ""
    created_at: float = 0
    image: str
    """`host/repository@sha256:…`, always by digest."""
    image_name: str = ""
    """What the user wrote."""
    pull_secrets: list[str] = []
    command: list[str] = []
    args: list[str] = []
    env: list[tuple[str, str]] = []
    env_refs: list[EnvRef] = []
    env_from: list[EnvFrom] = []
    volumes: list[Volume] = []
    working_dir: str = ""
    user: str = ""
    """`runAsUser`, or empty for the image's own."""
    port: int = 8080
    protocol: str = "http1"
    """http1, h2c or tcp: what the instance speaks."""
    container_concurrency: int = 0
    """Hard limit of requests in flight in one instance; 0: none."""
    timeout_s: float = 300
    response_start_timeout_s: float = 0
    idle_timeout_s: float = 0
    max_body_bytes: int = 0
    """These three are 0 for none beyond `timeout_s` and what the front door allows."""
    server_timing: bool = False
    cpu_request_m: int = 0
    cpu_limit_m: int = 0
    memory_request_bytes: int = 0
    memory_limit_bytes: int = 0
    disk_request_bytes: int = 0
    disk_limit_bytes: int = 0
    """What an instance may write; 0: what the node gives to everybody."""
    node_selector: dict[str, str] = {}
    """Labels that its nodes have."""
    tolerations: list[Toleration] = []
    pids_limit: int = 1024
    startup_probe: Probe | None = None
    readiness_probe: Probe = Probe()
    liveness_probe: Probe | None = None
    scale: ScaleSpec = ScaleSpec()
    progress_deadline_s: float = 600
    parkable: bool = True
    session_affinity: bool = False
    """Requests of one client go to one instance, while it lasts."""
    runtime: str = ""  # or GVISOR: a kernel of its own for each instance
    egress: str = ""
    """Where its instances may connect to (store/egress.py), within the project's policy; empty: as that says."""
    profile: str = "default"  # or "hardened" (nodeagent/profiles.py)
    labels: dict[str, str] = {}

    @property
    def key(self) -> RevisionKey:
        return f"{self.project}/{self.name}"


class TrafficTarget(Model, frozen=True, kw_only=True):
    """A share of a host's requests. Percents of one host sum to 100."""

    revision: str
    """Name inside the route's project."""
    percent: int


class Limits(Model, frozen=True, kw_only=True):
    """What the front door must know about a revision to admit requests to it. Copied from `Revision`."""

    container_concurrency: int = 0
    timeout_s: float = 300
    response_start_timeout_s: float = 0
    idle_timeout_s: float = 0
    max_body_bytes: int = 0
    server_timing: bool = False
    protocol: str = "http1"
    service: str = ""
    configuration: str = ""
    session_affinity: bool = False


class PathRule(Model, frozen=True, kw_only=True):
    """Requests whose path begins with `prefix` (whole segments) go to another route of the project."""

    prefix: str
    route: str
    strip: bool = False
    """The prefix is taken off."""


class Mirror(Model, frozen=True, kw_only=True):
    """A share of a route's requests is copied to a revision, whose answers are dropped."""

    revision: str
    percent: int


class Access(Model, frozen=True, kw_only=True):
    """Who may call a route, where that is said of it."""

    ingress: str = "all"
    """all; internal: by the inner door alone, which only instances reach; none."""
    private: bool | None = None
    """A caller shows an identity token of a principal that may; None: as the project's policy says."""
    invokers: list[str] = []
    """Principals that may, beside those whose role in the project allows it."""
    requests_per_s: float = 0
    """0: no limit of its own."""


class RouteEntry(Model, frozen=True, kw_only=True):
    """One route as the ingress sees it: every host it answers to, replaced as a whole, so that one request sees one version."""

    v: int = V1
    project: str
    route: str
    hosts: dict[str, list[TrafficTarget]]
    """Host without port, lower case → shares. A tag's host has one target of 100."""
    ports: dict[int, list[TrafficTarget]] = {}
    """TCP port of the front door → shares, when its revisions speak raw TCP; then there are no hosts."""
    limits: dict[str, Limits] = {}
    """By revision name; every revision named in `hosts` or `ports` is here."""
    redirects: bool = False
    """Plain HTTP is sent to TLS."""
    main: str = ""
    """Which of `hosts` is the route's own, that its domains stand for. What follows is said of it alone."""
    paths: list[PathRule] = []
    tags: dict[str, str] = {}
    """Tag → revision, for requests that name a tag in a header; empty: they may not."""
    mirror: Mirror | None = None
    affinity_key: str = ""
    """What the cookies of sessions are made with, when a revision of `limits` wants them."""
    access: Access | None = None
    """None: nothing is said of it."""

    @property
    def addresses(self) -> dict[str, list[TrafficTarget]]:
        """All that it answers to: its hosts, and its ports as `:15432`."""
        return {**self.hosts, **{f":{port}": targets for port, targets in self.ports.items()}} if self.ports else self.hosts


class Domain(Model, frozen=True, kw_only=True):
    """Who owns a host of the world's and which route answers to it. The ingress follows `route`, so a domain has that route's
    shares at any moment. A host `*.shop.example` stands for everything below `shop.example` that has no owner of its own."""

    v: int = V1
    project: str
    route: str
    """Name of a route of `project`."""
    secret: str = ""
    """Name of the Secret of `project` with the certificate; empty: none was given."""
    paths: list[PathRule] = []
    """Instead of those of the route."""


# -- what the autoscaler decided ----------------------------------------------------------------------------------------------


class Failure(Model, frozen=True, kw_only=True):
    """Why instances of a revision cannot start, for people: reason in CamelCase, message with the cure."""

    reason: str
    """ImagePullFailed, ExitCode<n>, OOMKilled, StartFailed, NeverReady, LivenessFailed, NoRoom, …"""
    message: str
    exit_code: int | None = None
    log_tail: list[str] = []
    at: float = 0
    count: int = 1
    """How many starts failed in a row."""
    retry_at: float = 0


class Scale(Model, frozen=True, kw_only=True):
    """The autoscaler's word on one revision. Written when it changes, never per request."""

    v: int = V1
    project: str
    revision: str
    desired: int
    verified: bool = False
    """`initial_scale` instances have been Ready at once: the revision works."""
    reason: str = ""
    """Why `desired` is what it is: InitialScale, Waking, Traffic, NoTraffic, MinScale, Schedule, Unreachable."""
    at: float = 0
    failure: Failure | None = None
    """The last start failure, until a start succeeds."""
    unplaced: str = ""
    """Why some instance has no node (`needs 512Mi, largest free is 380Mi on node-2`), or empty."""
    unplaced_as: str = "NoRoom"
    """Or NoRuntime: no node has what it asks for; QuotaExceeded: its project may have no more; NotItsTurn: room goes to another first."""


class Goal(msgspec.Struct, frozen=True):
    """Namespace for the goals of an assignment."""

    PARK = "park"
    RUN = "run"
    FREEZE = "freeze"
    DRAIN = "drain"


class Assignment(Model, frozen=True, kw_only=True):
    """One instance that a node shall have. Its deletion means: stop it now and forget it. Written by the autoscaler only."""

    v: int = V1
    instance: str
    project: str
    revision: str
    node: str
    service: str = ""
    """Whose revision it is: as whom the instance calls."""
    goal: str
    """`Goal.PARK`, RUN, FREEZE or DRAIN. FREEZE: what runs is stopped by the freezer until it is to RUN again. DRAIN: finish what it
    has, stop, then the autoscaler deletes the assignment."""
    at: float = 0
    cause_id: str = ""

    @property
    def revision_key(self) -> RevisionKey:
        return f"{self.project}/{self.revision}"


# -- what a node reports ------------------------------------------------------------------------------------------------------


class Instance(Model, frozen=True, kw_only=True):
    """The status of one instance: in etcd under its node's lease, and on NATS the moment it changes."""

    v: int = V1
    instance: str
    project: str
    revision: str
    service: str = ""
    node: str
    phase: Phase
    address: str = ""
    """`ip:port` that the ingress dials; set from Parked on."""
    at: float = 0
    """When the phase began."""
    seq: int = 0
    """Grows with each change of this instance: the newer of etcd's and NATS's word is the one with the higher."""
    failure: Failure | None = None
    notices: list[str] = []
    """Limits that it has met while it runs, each as `Reason: what to do`."""
    cause_id: str = ""
    phases_ms: dict[str, float] = {}
    """How long each step of the start took: pull, network, snapshot, create, start, probe."""

    @property
    def revision_key(self) -> RevisionKey:
        return f"{self.project}/{self.revision}"


class Node(Model, frozen=True, kw_only=True):
    """A machine that runs instances; its key lives as long as its agent's lease."""

    v: int = V1
    node: str
    cpu_m: int
    memory_bytes: int
    disk_bytes: int = 0
    """What instances may write and images take; 0: not known, and not asked for."""
    labels: dict[str, str] = {}
    taints: list[Taint] = []
    zone: str = ""
    address: str = ""
    """`host:port` where the registry asks its agent (logs, instances, images)."""
    images: list[str] = []
    """Digests of unpacked images: placement prefers a node that has them."""
    slots: int = 1000  # how many instances it takes at most
    runtimes: list[str] = []  # beside the node's own OCI runtime: GVISOR
    unschedulable: str = ""
    """Why nothing new may be placed here (`disk full: …`), or empty."""
    pressed: str = ""
    """Why it should keep fewer parked and frozen instances (`memory pressure: …`), or empty."""
    parked_most: int = 0
    """How many parked and frozen instances it keeps at most; 0: as many as its memory and slots allow."""
