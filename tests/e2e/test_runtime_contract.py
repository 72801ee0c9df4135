"""What an app may rely on inside its instance: Knative's runtime contract, and what it must not reach."""

from deploy.settings import PORTS
from tests.e2e.engine import Engine, until

PROBE = """
for f in null full zero random urandom tty ptmx; do test -e /dev/$f || echo missing /dev/$f; done
for f in /tmp /etc/resolv.conf; do test -e $f || echo missing $f; done
test -e /dev/console && echo console
mount -t tmpfs x /mnt 2>/dev/null && echo mount
unshare -U true 2>/dev/null && echo userns
(echo 1 > /proc/sys/kernel/hostname) 2>/dev/null && echo procsys
mknod /tmp/sda b 8 0 2>/dev/null && echo mknod
grep -q 'NoNewPrivs:.1' /proc/self/status || echo privs
grep -q 'Seccomp:.2' /proc/self/status || echo seccomp
echo probed
exec python3 /app/app.py
"""


def test_the_environment_names_service_revision_and_port(engine: Engine, app: str) -> None:
    engine.deploy(app, "test/testapp:v1", env={"MINE": "yes"}, port=8801)
    seen = engine.get(app, "/env").json()
    assert seen["PORT"] == "8801"
    assert (seen["K_SERVICE"], seen["K_CONFIGURATION"], seen["K_REVISION"]) == (app, app, f"{app}-00001")
    assert seen["MINE"] == "yes"
    assert seen["_cwd"] == "/app"


def test_command_args_user_and_workdir_are_taken(engine: Engine, app: str) -> None:
    container = {"command": ["/usr/bin/python3"], "args": ["/app/app.py", "extra"], "workingDir": "/tmp",
                 "securityContext": {"runAsUser": 1234}}  # fmt: skip
    engine.deploy(app, "test/testapp:v1", container=container)
    seen = engine.get(app, "/env").json()
    assert (seen["_argv"], seen["_cwd"], seen["_uid"]) == (["/app/app.py", "extra"], "/tmp", 1234)


def test_forwarding_headers_are_the_ingresss_own(engine: Engine, app: str) -> None:
    engine.deploy(app, "test/testapp:v1")
    sent = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "gopher", "X-Ebb-Instance": "spoofed", "X-Mine": "kept"}
    seen = {k.lower(): v for k, v in engine.get(app, "/headers", headers=sent).json()}
    assert seen["host"] == engine.host(app)
    assert seen["x-forwarded-proto"] == "http"
    assert "gopher" not in str(seen)
    assert "x-ebb-instance" not in seen
    assert seen["x-mine"] == "kept"
    assert "for=" in seen["forwarded"]
    assert seen["traceparent"].startswith("00-")


def test_an_instance_reaches_neither_the_host_nor_the_engine_nor_a_neighbour(engine: Engine, app: str) -> None:
    scale = {"min-scale": "2", "max-scale": "2"}
    engine.deploy(app, "test/testapp:v1", annotations=scale, spec={"containerConcurrency": 1})
    until(lambda: len(engine.instances(service=app, phases=("Ready",))) == 2, "two Ready", 20)
    own = {i["address"].rpartition(":")[0] for i in engine.instances(service=app, phases=("Ready",))}
    gateway = ".".join(next(iter(own)).split(".")[:2]) + ".0.1"
    ports = dict(zip(PORTS, range(engine.port_base, engine.port_base + len(PORTS)), strict=True)) | {"http": engine.http_port}
    inner = ports.pop("inner")
    assert engine.get(app, f"/connect?to={gateway}:{inner}&s=0.3").json()["connected"]
    targets = [f"{gateway}:{port}" for port in ports.values()]
    seen = {to: engine.get(app, f"/connect?to={to}&s=0.3").json()["connected"] for to in targets}
    assert not any(seen.values()), seen
    # With one of the two taken by a stream, the other answers all of these: it reaches itself and not its neighbour.
    with engine.front.stream("GET", "/stream?n=100&ms=100", headers={"Host": engine.host(app)}) as busy:
        chunks = busy.iter_raw()  # Kept: when it is collected, the stream ends.
        next(chunks)
        reached = {to: engine.get(app, f"/connect?to={to}:8080&s=0.3").json()["connected"] for to in own}
    assert sorted(reached.values()) == [False, True], reached


def test_the_sandbox_denies_what_a_container_needs_not(engine: Engine, app: str) -> None:
    engine.deploy(app, "test/testapp:v1", container={"command": ["sh", "-c", PROBE]})
    lines = [line.split()[-1] for line in engine.ebb("logs", app).stdout.splitlines() if line]
    assert "probed" in lines
    forbidden = {"console", "mount", "userns", "procsys", "mknod", "privs", "seccomp"}
    assert not forbidden & set(lines), lines
    assert "missing" not in engine.ebb("logs", app).stdout
