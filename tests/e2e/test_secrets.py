"""Secrets and ConfigMaps reach the app, as variables and as files, and so does a change. Where they are not: test_canary.py."""

import os
from pathlib import Path

import pytest

from nodeagent.volumes import place_of
from tests.e2e.engine import Engine, until
from tests.e2e.values import CONFIGS, SECRETS, put, refer

pytestmark = pytest.mark.real
NOBODYS = 65_536
"""The first of the ids that are of instances alone."""
SHORT = {"window": "6s"}


def test_env_and_env_from_carry_the_values_and_a_change_reaches_the_parked_instance(engine: Engine, app: str) -> None:
    put(engine, SECRETS, f"{app}-s", password="first$(HOME)")
    put(engine, CONFIGS, f"{app}-c", mode="fast")
    env = [refer("DB_PASSWORD", "secretKeyRef", f"{app}-s", "password"), {"name": "BOTH", "value": "$(DB_PASSWORD)!$(X_mode)"}]
    source = [{"prefix": "X_", "configMapRef": {"name": f"{app}-c"}}, {"secretRef": {"name": "none", "optional": True}}]
    engine.deploy(app, "test/testapp:v1", container={"env": env, "envFrom": source}, annotations=SHORT)
    seen = engine.get(app, "/env").json()
    assert (seen["DB_PASSWORD"], seen["X_mode"], seen["BOTH"]) == ("first$(HOME)", "fast", "first$(HOME)!fast")
    engine.at_zero(app, 30)
    parked = until(lambda: engine.instances(service=app, phases=("Parked",)), "one parked instance", 15)[0]["instance"]
    put(engine, SECRETS, f"{app}-s", password="second")

    def replaced() -> bool:
        now = {i["instance"] for i in engine.instances(service=app, phases=("Parked",))}
        return bool(now) and parked not in now

    until(replaced, "another parked instance in its place", 15)
    assert engine.condition(app)["status"] == "True"
    assert engine.get(app, "/env").json()["DB_PASSWORD"] == "second"


def test_a_missing_secret_is_the_reason_that_the_service_is_not_ready(engine: Engine, app: str) -> None:
    env = [refer("DB_PASSWORD", "secretKeyRef", f"{app}-none", "password")]
    engine.deploy(app, "test/testapp:v1", container={"env": env}, wait_s=0)
    said = engine.wait_failed(app)
    assert f"Secret default/{app}-none does not exist" in said["message"]
    revision = engine.condition(f"{app}-00001", kind="revisions")
    assert revision["reason"] == "SecretMissing", revision


def test_files_follow_their_secret_while_the_instance_runs_and_go_with_it(engine: Engine, app: str) -> None:
    put(engine, SECRETS, f"{app}-s", password="first", other="x")
    put(engine, CONFIGS, f"{app}-c", mode="fast", unused="y")
    volumes = [
        {"name": "s", "secret": {"secretName": f"{app}-s"}},
        {"name": "c", "configMap": {"name": f"{app}-c", "items": [{"key": "mode", "path": "deep/mode.txt"}]}},
        {"name": "n", "secret": {"secretName": f"{app}-none", "optional": True}},
    ]
    mounts = [{"name": name, "mountPath": f"/srv/{name}"} for name in "scn"]
    serve = ["python3", "-m", "http.server", "8080", "--directory", "/srv"]
    container = {"command": serve, "volumeMounts": mounts}
    engine.deploy(app, "test/testapp:v1", container=container, spec={"volumes": volumes}, annotations={"min-scale": "1"})
    assert engine.get(app, "/s/password").text == "first"
    [instance] = [each["instance"] for each in engine.instances(service=app, phases=("Ready",))]
    assert engine.get(app, "/c/deep/mode.txt").text == "fast"
    assert (engine.get(app, "/c/unused").status_code, engine.get(app, "/n/key").status_code) == (404, 404)
    put(engine, SECRETS, f"{app}-s", password="second")
    put(engine, SECRETS, f"{app}-none", key="late")
    until(lambda: engine.get(app, "/s/password").text == "second", "the file of the same instance", 10)
    until(lambda: engine.get(app, "/n/key").text == "late", "a file of an optional Secret that is there now", 10)
    assert engine.get(app, "/s/other").status_code == 404
    assert [each["instance"] for each in engine.instances(service=app, phases=("Ready",))] == [instance]
    kept = place_of(engine.run / "containerd" / "containerd.sock", engine.name) / instance
    assert kept.is_dir()
    engine.delete(app)
    until(lambda: not kept.exists(), "the files are gone with the instance", 30)


def test_what_containerd_keeps_is_roots_alone(engine: Engine) -> None:
    """What it keeps of an instance has no value of a Secret; its other variables are nobody's business either."""
    keys = engine.root / "keys"
    assert (keys.stat().st_mode & 0o7777, (keys / "secrets.key").stat().st_mode & 0o777) == (0o1771, 0o600)
    records = _called("meta.db", engine.root / "containerd")
    assert records
    for file in [*records, *_called("config.json", engine.run / "containerd")]:
        assert not _others_reach(file, engine.root if file in records else engine.run), file


def _called(name: str, top: Path) -> list[Path]:
    """Files of that name; what goes away while it is looked at is passed over, which `rglob` does not do."""
    return [Path(directory) / name for directory, _, files in os.walk(top) if name in files]


def _others_reach(file: Path, top: Path) -> bool:
    """Whether somebody who is not root may come down to `file` and read it."""
    try:
        own, parents = file.stat(), [parent.stat() for parent in file.parents if top in parent.parents]
    except FileNotFoundError:
        return False
    # The group of a bundle is root of one project's instances, who is nobody on the machine.
    ways = [stat.st_mode & (0o011 if stat.st_gid < NOBODYS else 0o001) for stat in parents]
    return all(ways) and bool(own.st_mode & 0o044)
