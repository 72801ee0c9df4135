"""An engine whose processes and files were root's: the next `ebb up` gives them to users of their own, and back."""

import json
import os
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deploy import components
from deploy.settings import USERS
from deploy.settings import Engine as Settings
from process import confine, pids
from tests.integration.test_allinone import Engine, going

pytestmark = [pytest.mark.real, pytest.mark.timeout(170)]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with going(tmp_path) as made:
        yield made


def running(engine: Engine) -> dict[str, int]:
    return {row["name"]: row["pid"] for row in engine.status()["components"]}


def users(engine: Engine) -> dict[str, int | None]:
    return {name: pids.user(pid) for name, pid in running(engine).items()}


def answer(engine: Engine, name: str, body: dict[str, object] | None = None) -> int:
    """What the API says to a Secret's creation, or to who asks for it."""
    url = f"https://127.0.0.1:{engine.base}/api/v1/namespaces/default/secrets"
    tls = ssl.create_default_context(cafile=engine.root / "ca.crt")
    admin = {"Authorization": f"Bearer {(engine.root / 'admin.token').read_text().strip()}"}
    with httpx.Client(trust_env=False, verify=tls, headers=admin, timeout=20) as client:
        return (client.get(f"{url}/{name}") if body is None else client.post(url, json=body)).status_code


def test_what_ran_as_root_is_started_anew_as_users_and_knows_all_that_was_stored(engine: Engine) -> None:
    engine.flags += ["--first-uid", "0"]
    engine.up()
    assert set(users(engine).values()) == {0}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kept"}, "stringData": {"a": "b"}}
    assert answer(engine, "kept", body) == 201
    before = running(engine)
    os.kill(before["ebb up"], signal.SIGKILL)
    # As an Ebb that knew of no users would have left it.
    state = json.loads((engine.run / "state.json").read_text())
    del state["engine"]["first_uid"]
    (engine.run / "state.json").write_text(json.dumps(state))
    del engine.flags[-2:]
    engine.up()
    first = Settings().first_uid
    own = {role: first + number for number, role in enumerate(USERS)}
    assert users(engine) == {"ebb up": 0, "containerd": 0, "nodeagent": 0, **own}
    now = running(engine)
    assert [name for name in before if before[name] == now[name]] == ["containerd", "nodeagent"]
    assert engine.status()["healthy"]
    assert answer(engine, "kept") == 200
    for path in (engine.root / "etcd", engine.root / "registry"):
        inside = {each.stat().st_uid for each in (path, *path.rglob("*"))}
        assert inside == {own[path.name]}
    # Killed once more: what runs as it should is kept, whoever it runs as.
    os.kill(now["ebb up"], signal.SIGKILL)
    engine.up()
    assert {**running(engine), "ebb up": 0} == {**now, "ebb up": 0}


def opened(*directories: str) -> list[str]:
    """Starts a command where everybody may enter these directories: what is closed above them is another there, and open."""
    script = confine._script(confine.behind_closed(directories), "/mnt")
    return ["unshare", "--mount", "--propagation", "slave", "sh", "-ec", script, "sh"]


def test_where_everybody_may_enter_all_stay_in_the_engines_own_mount_namespace(engine: Engine) -> None:
    """A machine whose Python and directories are open: nothing needs to be hidden, and nothing is."""
    engine.root.parent.chmod(0o755)
    engine.within = opened(str(engine.root.parent), *components.code())
    engine.up()
    assert engine.status()["healthy"]
    first, now = Settings().first_uid, running(engine)
    own = {role: first + number for number, role in enumerate(USERS)}
    assert {name: pids.user(now[name]) for name in own} == own
    namespaces = {name: os.readlink(f"/proc/{now[name]}/ns/mnt") for name in ("ebb up", *own)}
    assert set(namespaces.values()) == {namespaces["ebb up"]}, namespaces
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kept"}, "stringData": {"a": "b"}}
    assert answer(engine, "kept", body) == 201, "the registry reads its keys"


def test_root_again_when_asked_for(engine: Engine) -> None:
    engine.up()
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kept"}, "stringData": {"a": "b"}}
    assert answer(engine, "kept", body) == 201
    engine.down()
    engine.flags += ["--first-uid", "0"]
    engine.up()
    assert set(users(engine).values()) == {0}
    assert answer(engine, "kept") == 200
    mine = ("etcd", "registry", "keys", "nats", "identity", "admin.token")
    assert {(engine.root / name).stat().st_uid for name in mine} == {0}


def test_a_file_named_on_the_command_line_may_be_where_only_root_comes(engine: Engine, tmp_path: Path) -> None:
    """… and the administrator's umask leaves nothing to others."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    file = closed / "oidc.toml"
    file.write_text('[[issuer]]\nurl = "https://login.example.org"\naudience = "ebb"\nclaim = "email"\n')
    file.chmod(0o600)
    engine.flags += ["--oidc-file", str(file)]
    before = os.umask(0o077)
    try:
        engine.up()
    finally:
        os.umask(before)
    assert engine.status()["healthy"]
