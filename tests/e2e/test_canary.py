"""Words that only those may see who are meant to: given as variables, files, logins and tokens, then looked for in all that the engine has.

Looked through: every file under `--root` and `--run` (etcd's and NATS's data as they lie on the disk, logs, the audit log, containerd's
database and the bundles of what runs), the command line of every process of the machine, metrics, all that the API lists, stories, error
pages, and what the commands print. In plain and in base64, however it is aligned.

Not looked at, each for its reason:
- the files of instances in memory (`nodeagent/volumes.py`): that is where they are meant to be, for root of the machine alone;
- crun's own copy of an instance's spec beside its state, under `<run>/containerd/shims/runc`: `/run` is memory, root's alone;
- what the API answers to who reads one Secret by name and may, and the memory and environment of the app itself;
- what the app itself prints: the test's does not.
"""

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deploy.settings import PORTS
from tests.e2e.engine import Engine, until
from tests.e2e.values import CONFIGS, SECRETS, behind_a_login, log_in, put, refer

pytestmark = pytest.mark.real
VARIABLE, FILE, PULL, SENT = "canary-variable-5be1a0c7", "canary-file-93d2f6ab", "canary-pull-c47d1e09", "canary-sent-1f8ab3e2"
SEEN = "canary-that-is-no-secret-77aa01"
"""Is in a ConfigMap, a log and variables that are no secret: who does not find it does not look."""
BCRYPT = "$2b$05$abcdefghijklmnopqrstuuxInobbkckyFTenMEX44gDRlb7xxqyTS"
KINDS = {
    "/apis/serving.knative.dev/v1": ("services", "configurations", "routes", "revisions"),
    "/apis/serving.knative.dev/v1beta1": ("domainmappings",),
    "/api/v1": ("secrets", "configmaps"),
}
ONE_SECRET = "/api/v1/namespaces/{ns}/{plural}/{name}"


def forms(word: str) -> list[str]:
    """`word` as it is, and the part of its base64 that is the same whatever stands around it, for each of three alignments."""
    found = [word]
    for before in range(3):
        text = base64.b64encode(b"x" * before + word.encode() + b"xx").decode().rstrip("=")
        found.append(text[(before * 8 + 5) // 6 : (before + len(word)) * 8 // 6])
    return found


def test_the_forms_of_a_word_are_found_wherever_it_stands_in_base64() -> None:
    for around in range(7):
        text = base64.b64encode(b"u" * around + b":" + VARIABLE.encode() + b'"}').decode()
        assert [form for form in forms(VARIABLE)[1:] if form in text], around


@pytest.fixture
def image(tmp_path: Path) -> Iterator[str]:
    """An image behind a login with the password PULL."""
    with behind_a_login(tmp_path, BCRYPT, PULL) as name:
        yield name


def test_no_secret_is_anywhere_but_where_it_is_meant_to_be(engine: Engine, app: str, image: str, tmp_path: Path) -> None:
    apps = [app, f"{app[:40]}-pulled", f"{app[:40]}-fails", f"{app[:40]}-wrong", f"{app[:40]}-login"]
    token = engine.api.post("/apis/ebb.dev/v1/tokens", json={"note": "canary"}).json()["token"]
    try:
        shown = _use_all(engine, apps, image, token)
        shown += _asked(engine, apps) + _printed(engine, apps) + _metrics(engine)
        words = tmp_path / "words"
        secret = [form for word in (VARIABLE, FILE, PULL, SENT, token.rpartition("_")[2]) for form in forms(word)]
        told = {f"{where}: {form}" for where, text in shown for form in secret if form in text}
        assert told == set(), "\n".join(sorted(told))
        assert any(SEEN in text for where, text in shown if where.endswith("configmaps")), "the lists were not looked at"
        words.write_text("\n".join(secret) + "\n")
        assert _holding(words, engine.root, engine.run) == []
        assert [str(path) for path in Path("/proc").glob("[0-9]*/cmdline") if _says(path, secret)] == []
        words.write_text(SEEN + "\n")
        found = "\n".join(_holding(words, engine.root, engine.run))
        for part in ("/etcd/", "/node/instances/", "/meta.db", "/config.json"):
            assert part in found, f"{part} was not looked at: {found}"
    finally:
        for name in apps[1:]:
            engine.delete(name)


def _use_all(engine: Engine, apps: list[str], image: str, token: str) -> list[tuple[str, str]]:
    """Secrets go all the ways there are, right and wrong; what was said to who did it wrong."""
    good, pulled, fails, wrong, login = apps
    put(engine, SECRETS, f"{good}-v", password="old")
    put(engine, SECRETS, f"{good}-v", password=VARIABLE)
    put(engine, SECRETS, f"{good}-f", key=FILE)
    put(engine, CONFIGS, f"{good}-c", mode=SEEN)
    log_in(engine, f"{good}-p", image, PULL)
    log_in(engine, f"{good}-q", image, SENT)
    env = [refer("PASSWORD", "secretKeyRef", f"{good}-v", "password")]
    open_ = {"name": "OPEN", "value": SEEN}
    volumes = [{"name": "f", "secret": {"secretName": f"{good}-f"}}, {"name": "c", "configMap": {"name": f"{good}-c"}}]
    mounts = [{"name": name, "mountPath": f"/srv/{name}"} for name in "fc"]
    check = ["sh", "-c", 'test "$PASSWORD" && test -s /srv/f/key']
    container = {"env": [*env, open_], "envFrom": [{"secretRef": {"name": f"{good}-v"}}], "volumeMounts": mounts}
    ready = {"readinessProbe": {"exec": {"command": check}, "periodSeconds": 5, "timeoutSeconds": 5}}
    engine.deploy(
        good, "test/testapp:v1", container={**container, **ready}, spec={"volumes": volumes}, annotations={"min-scale": "1"}
    )
    engine.deploy(pulled, image, container={"env": [open_]}, spec={"imagePullSecrets": [{"name": f"{good}-p"}]})
    assert engine.get(good, "/env").json()["PASSWORD"] == VARIABLE
    assert engine.get(good, "/log", params={"line": SEEN}).status_code == 200
    exits = {**container, "env": [*env, {"name": "EXIT_AT_START", "value": "3"}]}
    engine.deploy(fails, "test/testapp:v1", container=exits, spec={"volumes": volumes}, wait_s=0)
    engine.deploy(wrong, "test/testapp:v1", container={"env": [refer("X", "secretKeyRef", f"{good}-f", "none")]}, wait_s=0)
    engine.deploy(login, image, spec={"imagePullSecrets": [{"name": f"{good}-q"}]}, wait_s=0)
    shown = [(name, json.dumps(engine.wait_failed(name))) for name in (fails, wrong, login)]
    answers = [engine.get(name) for name in (fails, wrong, "nobody")]
    answers += _refused(engine, good, token)
    assert all(answer.status_code >= 400 for answer in answers), answers
    assert engine.ebb("secret", "rotate").returncode == 0
    until(lambda: SEEN in engine.ebb("logs", good).stdout, "the app's line in its log", 10)
    return shown + [(str(answer.url), f"{dict(answer.headers)} {answer.text}") for answer in answers]


def _refused(engine: Engine, good: str, token: str) -> list[httpx.Response]:
    """What nobody can do with a Secret, and with a token."""
    api, bearer = engine.api, {"Authorization": f"Bearer {token}"}
    assert api.get(SECRETS, headers=bearer).status_code == 200
    path = f"{SECRETS}/{good}-v"
    return [
        api.post(SECRETS, json={"metadata": {"name": "bad"}, "data": {"a": SENT}}),
        api.post(SECRETS, json={"metadata": {"name": "bad"}, "stringData": {"a": [SENT]}}),
        api.post(SECRETS, content=f'{{"stringData": {{"a": "{SENT}'),
        api.post(SECRETS, content=f"a: !x {SENT}\nb: [", headers={"content-type": "application/yaml"}),
        api.post(SECRETS, json={"metadata": {"name": f"{good}-v"}, "stringData": {"a": SENT}}),
        api.put(path, json={"metadata": {"name": f"{good}-v"}, "type": "kubernetes.io/tls", "stringData": {"a": SENT}}),
        api.patch(path, json=[{"op": "test", "path": "/data/password", "value": SENT}],
                  headers={"content-type": "application/json-patch+json"}),
        api.get("/apis/ebb.dev/v1/none", headers=bearer),
        api.get("/apis/ebb.dev/v1/users", headers={"Authorization": f"Bearer {token}x"}),
        api.post("/apis/ebb.dev/v1/tokens", json={"principal": 1, "note": SENT}, headers=bearer),
        engine.front.get("/", headers={"Host": "nobody.default.localhost", **bearer}),
    ]  # fmt: skip


def _asked(engine: Engine, apps: list[str]) -> list[tuple[str, str]]:
    """What the API answers on all that can be read there, in a project and everywhere, but for one Secret and endless streams."""
    found = []
    for path, methods in engine.api.get("/openapi.json").json()["paths"].items():
        endless = path.endswith(("/top", "/images:progress", "/audit"))
        if "get" not in methods or path == ONE_SECRET or endless or "{about}" in path or "{path}" in path:
            continue
        kinds = next((kinds for root, kinds in KINDS.items() if path.startswith(root + "/")), ("",))
        for kind in kinds if "{plural}" in path else ("",):
            for name in apps if "{name}" in path else ("",):
                filled = path.replace("{ns}", "default").replace("{plural}", kind).replace("{name}", name)
                found.append((filled, engine.api.get(filled).text))
    table = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    found += [(f"{path} as a table", engine.api.get(path, headers=table).text) for path in (SECRETS, f"{SECRETS}/{apps[0]}-v")]
    found.append(("audit", engine.api.get("/apis/ebb.dev/v1/audit", params={"tail": 1000}).text))
    assert len(found) > 40
    return found


def _printed(engine: Engine, apps: list[str]) -> list[tuple[str, str]]:
    """What commands print."""
    words = [["services"], ["revisions"], ["instances"], ["instances", "-o", "json"], ["secret", "list"], ["audit"], ["nodes"]]
    words += [[word, name] for word in ("why", "logs") for name in apps]
    instance = engine.instances(service=apps[0], phases=("Ready",))[0]["instance"]
    words += [["story", instance], ["status", "--root", str(engine.root), "--run", str(engine.run)]]
    done = [(" ".join(argv), engine.ebb(*argv, check=False)) for argv in words]
    return [(said, one.stdout + one.stderr) for said, one in done]


def _metrics(engine: Engine) -> list[tuple[str, str]]:
    found = []
    for port in range(engine.port_base, engine.port_base + len(PORTS) + 1):
        for path in ("/metrics", "/readyz"):
            try:
                found.append((f"{port}{path}", httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5).text))
            except httpx.HTTPError:
                continue
    assert sum("ebb_" in text for _, text in found) >= 4, [where for where, _ in found]
    return found


def _holding(words: Path, *tops: Path) -> list[str]:
    """Files below `tops` that hold one of the words in the file `words`. What links lead to is below too, or in memory."""
    argv = ["grep", "-rlaF", "--devices=skip", "-f", str(words), *map(str, tops)]
    found = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False).stdout.splitlines()
    apart = str(tops[-1] / "containerd" / "shims" / "runc") + "/"
    return [file for file in found if not file.startswith(apart)]


def _says(path: Path, words: list[str]) -> bool:
    try:
        data = path.read_bytes()
    except OSError:
        return False
    return any(word.encode() in data for word in words)
