"""Who the processes of an engine are on its machine, and what somebody who took one over comes to there."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.settings import USERS
from tests.e2e.engine import Engine

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]
NET_BIND_SERVICE = 1 << 10
RIGHTS = {"ingress": NET_BIND_SERVICE}
"""All capabilities that anybody but the node agent and containerd has."""
READS = {
    "etcd": {"identity/etcd/own.pem", "etcd/member/snap/db"},
    "nats": {"identity/nats/own.pem", "nats/nats.conf"},
    "gate": {"identity/gate/own.pem"},
    "registry": {
        "identity/registry/own.pem",
        "keys/secrets.key",
        "keys/certificates.key",
        "keys/identity.key",
        "keys/ca.key",
        "admin.token",
    },
    "autoscaler": {"identity/autoscaler/own.pem"},
    "ingress": {"identity/ingress/own.pem", "keys/certificates.key"},
}
NOBODY = {"keys/cluster.key", "identity/nodeagent/own.pem", "identity/cli/own.pem", "kubeconfig"}
WRITES = {"etcd": {"etcd"}, "registry": {"registry", "keys"}, "ingress": {"peers"}}
"""Directories, the topmost of each."""


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def role_of(component: str) -> str:
    return re.sub(r"-\d+$", "", component)


def as_process(pid: int, script: str, *words: str) -> list[str]:
    """What a shell prints that has the ids, groups and mounts of process `pid`."""
    now = status(pid)
    ids = [f"--reuid={now['Uid'].split()[0]}", f"--regid={now['Gid'].split()[0]}"]
    ids.append(f"--groups={','.join(now['Groups'].split())}" if now["Groups"] else "--clear-groups")
    argv = ["nsenter", f"--target={pid}", "--mount", "setpriv", *ids, "--bounding-set=-all", "sh", "-c", script, "sh", *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert not done.returncode, done.stderr
    return done.stdout.splitlines()


def everything(top: Path) -> Iterator[Path]:
    """Directories and files of the engine's own, but for what is inside of containerd's and the agent's."""
    for at, below, files in os.walk(top):
        yield from (Path(at), *(Path(at, name) for name in files))
        below[:] = [name for name in below if at != str(top) or name not in ("containerd", "node")]
        yield from (Path(at, name) for name in ("containerd", "node") if at == str(top) and Path(at, name).exists())


def private(engine: Engine) -> set[Path]:
    """Files that not everybody may read."""
    found = {path for path in everything(engine.root) if path.is_file() and not path.stat().st_mode & 0o004}
    return found | {engine.root / name for names in (*READS.values(), NOBODY) for name in names}


def test_everything_but_the_node_agent_and_containerd_is_a_user_of_its_own_without_rights(engine: Engine) -> None:
    seen: dict[str, set[int]] = {}
    for component, pid in engine.pids().items():
        role, now = role_of(component), status(pid)
        if role in ("ebb up", "nodeagent", "containerd"):
            assert now["Uid"].split() == ["0"] * 4, component
            continue
        ids = set(now["Uid"].split()) | set(now["Gid"].split())
        assert len(ids - {"0"}) == len(ids) == 1, (component, now["Uid"], now["Gid"])
        seen.setdefault(role, set()).update(map(int, ids))
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(now[kind], 16) == RIGHTS.get(role, 0), (component, kind, now[kind])
        assert now["NoNewPrivs"] == "1", component
    assert set(seen) == set(USERS)
    assert len(set.union(*seen.values())) == len(USERS), "none has another's"


def test_who_took_a_process_over_reads_its_own_keys_and_nobody_elses(engine: Engine) -> None:
    files = sorted(map(str, private(engine)))
    assert {str(engine.root / name) for name in NOBODY} <= set(files)
    read = 'for file in "$@"; do if head -c 1 "$file" > /dev/null 2>&1; then echo "$file"; fi; done'
    agent = engine.pids()["nodeagent"]
    for component, pid in engine.pids().items():
        role = role_of(component)
        if role not in USERS:
            continue
        got = {str(Path(name).relative_to(engine.root)) for name in as_process(pid, read, *files)}
        own = {name for name in got if name.startswith(f"{role}/")}
        assert got - own == READS[role] - own, component
        assert READS[role] <= got, component
        assert as_process(pid, read, f"/proc/{agent}/environ", f"/proc/{agent}/root/etc/hostname", "/etc/shadow") == []


def test_who_took_a_process_over_puts_nothing_into_anothers_place(engine: Engine) -> None:
    write = 'for at in "$@"; do if [ -w "$at" ]; then echo "$at"; fi; done'
    places = [str(path) for top in (engine.root, engine.run) for path in everything(top) if path.exists()]
    for component, pid in engine.pids().items():
        role = role_of(component)
        if role not in USERS:
            continue
        got = [Path(line) for line in as_process(pid, write, *places)]
        topmost = {path.name for path in got if path.is_dir() and path.parent not in got}
        assert topmost == WRITES.get(role, set()), component
        files = {path.name for path in got if path.is_file() and not topmost & {above.name for above in path.parents}}
        assert files <= {"own.pem", "nats.conf", "admin.token"}, "its own, where it can change nothing else"
    # The registry may add a key of Secrets beside the authority's; it cannot take that one, or another's, away.
    move = 'for file in "$@"; do if mv -f "$file" "$file.away" 2> /dev/null; then echo "$file"; fi; done'
    keys = [str(engine.root / "keys" / name) for name in ("cluster.key", "certificates.key")]
    assert as_process(engine.pids()["registry"], move, *keys) == []


def test_keys_of_secrets_are_rotated_by_a_registry_that_is_not_root(engine: Engine) -> None:
    file = engine.root / "keys" / "secrets.key"
    before = file.read_text().splitlines()
    engine.ebb("secret", "rotate")
    now = file.stat()
    assert file.read_text().splitlines()[: len(before)] == before
    assert len(file.read_text().splitlines()) == len(before) + 1
    assert now.st_mode & 0o777 == 0o600
    assert now.st_uid == int(status(engine.pids()["registry"])["Uid"].split()[0])
