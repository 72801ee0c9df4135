"""The processes of an all-in-one engine: their command lines, order, and how each is known to be ready. Pure but for paths."""

import os
import platform
import shlex
import sys
from pathlib import Path

import process
from deploy import readiness
from deploy.identities import DIRECT
from deploy.settings import Engine
from process.confine import User
from process.identity import AUTHORITY, BUS, OWN
from process.supervise import Spec

NATS = Path(sys.executable).parent / "nats-server"
CODE = Path(process.__file__).parents[1]
OF_ROOT = ("HOME", "USER", "LOGNAME", "MAIL", "XDG_RUNTIME_DIR", "SUDO_USER", "SUDO_UID", "SUDO_GID", "SUDO_COMMAND")
"""What a variable says of root is not so for who is not root."""

# First to last. Stopping: the front door drains first; etcd, which holds what all others say, goes last.
STORES, GATE, ENGINE, DOOR = range(4)
STOP_DOOR, STOP_DECIDERS, STOP_AGENT, STOP_CONTAINERD, STOP_GATE, STOP_STORES = range(6)
# What requests wait for that are served now goes before the work that a deploy makes.
NICE = {"ingress": -5, "registry": 5}
GATED = ("nodeagent", "ingress")
"""Whose way to etcd is the gate (store/roles.py)."""


def specs(engine: Engine, containerd_config: Path) -> list[Spec]:
    """All children of `engine`, in the order they are shown."""
    stores = [_etcd(engine), _nats(engine), _containerd(engine, containerd_config), _gate(engine)]
    return [*stores, *_programs(engine), *doors(engine)]


def doors(engine: Engine) -> list[Spec]:
    """The workers of the front door: `ingress`, `ingress-2`, …"""
    return [_door(engine, number) for number in range(engine.worker_count)]


def spare_door(engine: Engine) -> Spec:
    """One worker more, for as long as the others are started anew."""
    return _door(engine, engine.worker_count)


def ready_url(engine: Engine, name: str) -> str:
    """Where the component says whether it is well; empty when it has no such address."""
    if name == "etcd":
        return f"http://127.0.0.1:{engine.port('etcd_health')}/health"
    if name in ("nats", "containerd"):
        return ""
    if name.startswith("ingress"):
        return f"http://127.0.0.1:{engine.door_port(int(name.partition('-')[2] or 1) - 1)}/readyz"
    return f"http://127.0.0.1:{engine.port(name + '_admin')}/readyz"


def environment() -> dict[str, str]:
    """Our own, without what would configure the servers behind our back, or tell systemd that a child is us."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ETCD_", "NATS_", "CONTAINERD_", "NOTIFY_SOCKET"))}
    kept.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    if "/usr/sbin" not in kept["PATH"].split(":"):
        kept["PATH"] += ":/usr/sbin:/sbin"
    kept["PYTHONUNBUFFERED"] = "1"
    return kept


def code() -> list[str]:
    """Directories in which Python, its packages and ours are: whoever runs one of our programs has to come to them."""
    found = [sys.prefix, sys.base_prefix, str(CODE), *(path for path in sys.path if os.path.isdir(path))]
    program = sys.executable
    while os.path.islink(program):
        program = os.path.normpath(os.path.join(os.path.dirname(program), os.readlink(program)))
        found.append(os.path.dirname(program))
    return found


def user(engine: Engine, role: str) -> User | None:
    """Who processes of `role` run as; None: root."""
    if not engine.uid(role):
        return None
    low = role == "ingress" or (role == "registry" and int(engine.api_address.rpartition(":")[2]) < 1024)
    return User(
        uid=engine.uid(role),
        groups=(engine.sealers,) if role in ("registry", "ingress") else (),
        capabilities=("net_bind_service",) if low else (),
        reaches=(engine.root, engine.run, f"{engine.root}/{role}", *code()),
        staging=f"{engine.run}/staging",
    )


def _environment_of(engine: Engine, role: str) -> dict[str, str]:
    if not engine.uid(role):
        return environment()
    return {**{name: value for name, value in environment().items() if name not in OF_ROOT}, "HOME": "/"}


def _etcd(engine: Engine) -> Spec:
    client, peer = (f"https://127.0.0.1:{engine.port(name)}" for name in ("etcd", "etcd_peer"))
    env = _environment_of(engine, "etcd")
    if platform.machine() != "x86_64":
        env["ETCD_UNSUPPORTED_ARCH"] = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
    argv = ["etcd", "--name", "ebb", "--data-dir", f"{engine.root}/etcd", "--logger", "zap", "--log-level", "warn"]
    argv += ["--listen-client-urls", client, "--advertise-client-urls", client]
    argv += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"ebb={peer}"]
    # Alone, it has nobody to send a heartbeat to, but wakes for each; an election after a restart takes one to six of them.
    argv += ["--heartbeat-interval", "200", "--election-timeout", "1000"]
    argv += ["--auto-compaction-mode", "periodic", "--auto-compaction-retention", "10m"]
    argv += ["--quota-backend-bytes", str(2 * 2**30), "--max-request-bytes", str(4 * 2**20)]
    own = engine.identity("etcd")
    for kind in ("", "peer-"):
        argv += [
            f"--{kind}cert-file={own / OWN}",
            f"--{kind}key-file={own / OWN}",
            f"--{kind}trusted-ca-file={own / AUTHORITY}",
        ]
        argv.append(f"--{kind}client-cert-auth")
    # Its JSON door would speak to itself as a client, and nobody needs it. Health is no secret and has a door of its own.
    argv += ["--client-cert-allowed-hostname", DIRECT, "--enable-grpc-gateway=false"]
    argv += ["--listen-metrics-urls", f"http://127.0.0.1:{engine.port('etcd_health')}"]
    return Spec(
        name="etcd",
        argv=tuple(argv),
        log=engine.logs / "etcd.log",
        ready=readiness.http(ready_url(engine, "etcd")),
        stage=STORES,
        stop_stage=STOP_STORES,
        env=env,
        cwd=engine.root,
        user=user(engine, "etcd"),
    )


def _nats(engine: Engine) -> Spec:
    port = engine.port("nats")
    return Spec(
        name="nats",
        argv=(str(NATS), "--config", str(engine.nats_config)),
        log=engine.logs / "nats.log",
        ready=readiness.tcp("127.0.0.1", port, greeting=b"INFO", identity=engine.identity("cli"), name=BUS),
        stage=STORES,
        stop_stage=STOP_STORES,
        env=_environment_of(engine, "nats"),
        cwd=engine.root,
        user=user(engine, "nats"),
    )


def _gate(engine: Engine) -> Spec:
    own = [f"--listen=127.0.0.1:{engine.port('gate')}"]
    return _program(engine, "gate", "store.gate", own, engine.port("gate_admin"), (GATE, STOP_GATE), 10)


def _containerd(engine: Engine, config: Path) -> Spec:
    """In a mount namespace of its own: what it mounts nobody else sees, and it vanishes with the last of its processes.

    There, the unified hierarchy of a hybrid machine is taken away (crun refuses to work beside it), crun is mounted read-only (it guards
    itself against being written to by who it starts, by starting anew from such a mount if it is not on one), and
    /run/containerd, where every shim puts its sockets, is a directory of this engine's.
    """
    shims = shlex.quote(f"{engine.run}/containerd/shims")
    script = (
        "if [ -e /sys/fs/cgroup/unified/cgroup.controllers ]; then umount /sys/fs/cgroup/unified; fi; "
        'if crun=$(command -v crun); then mount --bind "$crun" "$crun" && mount -o remount,bind,ro "$crun"; fi; '
        f"mkdir -p {shims} /run/containerd && mount --bind {shims} /run/containerd && "
        f"exec containerd --config {shlex.quote(str(config))}"
    )
    return Spec(
        name="containerd",
        argv=("unshare", "--mount", "--propagation", "private", "sh", "-c", script),
        log=engine.logs / "containerd.log",
        ready=readiness.socket(str(engine.containerd_socket)),
        stage=STORES,
        stop_stage=STOP_CONTAINERD,
        # Where a shim puts, for a moment, what a command in an instance (a probe) is started with, variables and all.
        env={**environment(), "XDG_RUNTIME_DIR": str(engine.containerd_socket.parent)},
        cwd=engine.root,
    )


def _programs(engine: Engine) -> list[Spec]:
    registry = [f"--listen={engine.api_address}", "--listen-tls=true", f"--admin-token-file={engine.admin_token}"]
    registry += [f"--local-ca={engine.local_ca}", f"--local-ca-key={engine.local_ca_key}"]
    registry += [f"--oidc-file={engine.given('oidc.toml')}"] if engine.oidc_file else []
    registry += [f"--domain={engine.domain}", f"--url-port={engine.http_port}"]
    agent = [f"--containerd={engine.containerd_socket}", f"--root={engine.root}/node", f"--id={engine.id}"]
    agent += [f"--subnet={engine.subnet}", f"--node={engine.machine}", "--on-stop=stop"]
    agent += [f"--parked-most={engine.parked_most}", f"--project-processors={engine.project_processors}"]
    agent += [f"--inner-port={engine.port('inner')}"]
    registry.append(f"--identity-key-file={engine.identity_keys}")
    if engine.pressure_file:
        agent.append(f"--pressure-file={engine.pressure_file}")
    for own in (registry, agent):
        own.append(f"--secret-key-file={engine.secret_keys}")
    if engine.https_port:
        registry.append(f"--certificate-key-file={engine.certificate_keys}")
        registry.append(f"--https-port={engine.https_port}")
        if engine.acme_email:
            registry += [f"--acme-directory={engine.acme_directory}", f"--acme-email={engine.acme_email}"]
            registry += [f"--acme-ca-file={engine.given('acme-ca.pem')}"] if engine.acme_ca_file else []
    if engine.allow_private_registries:
        agent.append(f"--allow-private-registries={engine.allow_private_registries}")
    if engine.insecure_registries:
        agent.append(f"--insecure-registries={engine.insecure_registries}")
    flags: dict[str, tuple[list[str], int, float]] = {
        "registry": ([*registry, f"--data={engine.root}/registry"], STOP_DECIDERS, 15),
        "autoscaler": ([f"--park={str(engine.park).lower()}"], STOP_DECIDERS, 15),
        "nodeagent": (agent, STOP_AGENT, 90),
    }
    return [
        _program(engine, name, name, own, engine.port(name + "_admin"), (ENGINE, stop_stage), stop_timeout_s)
        for name, (own, stop_stage, stop_timeout_s) in flags.items()
    ]


def _door(engine: Engine, number: int) -> Spec:
    name = "ingress" if number == 0 else f"ingress-{number + 1}"
    own = [f"--listen={engine.http}", f"--peers={engine.peers}", f"--listen-inner={engine.inner}"]
    if engine.https_port:
        own += [f"--listen-tls={engine.https}", f"--certificate-key-file={engine.certificate_keys}"]
    return _program(engine, name, "ingress", own, engine.door_port(number), (DOOR, STOP_DOOR), 40)


def _program(
    engine: Engine, name: str, module: str, own: list[str], admin: int, stages: tuple[int, int], stop_timeout_s: float
) -> Spec:
    # -P: a directory called `registry` where the user happens to stand must not be taken for ours.
    argv = [sys.executable, "-P", "-m", module]
    etcd = engine.port("gate" if module in GATED else "etcd")
    argv += [f"--etcd=127.0.0.1:{etcd}", f"--nats=nats://127.0.0.1:{engine.port('nats')}"]
    role = module.rpartition(".")[2]
    argv.append(f"--identity={engine.identity(role)}")
    argv += [f"--log-level={engine.log_level}", f"--admin=127.0.0.1:{admin}", *own]
    return Spec(
        name=name,
        argv=tuple(argv),
        log=engine.logs / f"{name}.log",
        ready=readiness.http(ready_url(engine, name)),
        stage=stages[0],
        stop_stage=stages[1],
        stop_timeout_s=stop_timeout_s,
        nice=NICE.get(module, 0),
        env=_environment_of(engine, role),
        cwd=engine.root,
        user=user(engine, role),
    )
