"""`ebb up`, `ebb down`, `ebb roll`, `ebb status`, `ebb trust`: the whole engine on one machine.

    python -m deploy.allinone up|down|roll|status|trust …

Exit codes: 0 done, 1 refused (the message says why and what to do), 2 bad usage.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from deploy import leftovers, preflight, statefile, view
from deploy import trust as trusting
from deploy.runner import Runner, problems, stop_leftovers
from deploy.settings import BadUsage, Engine, check
from deploy.statefile import EngineState
from process import logs, pids
from process.supervise import StartFailed

DETACH_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 200.0
ROLL_TIMEOUT_S = 600.0


def main(argv: Sequence[str] | None = None) -> None:
    """Parse and do; ends with SystemExit."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        arguments.usage.error(f"no such flag: {' '.join(unknown)}; see: {arguments.usage.prog} --help")
    arguments.given = words[1:]
    try:
        raise SystemExit(arguments.does(arguments))
    except BadUsage as error:
        _fail(str(error), 2)
    except (preflight.Refused, StartFailed) as error:
        _fail(str(error), 1)


def up(arguments: argparse.Namespace) -> int:
    """Start and supervise until stopped; with -d, do so in the background and return when it is ready."""
    fields = Engine.__struct_fields__
    engine = Engine(**{name: value for name, value in vars(arguments).items() if name in fields and value is not None})
    engine = msgspec.structs.replace(engine, root=os.path.abspath(engine.root), run=os.path.abspath(engine.run))
    check(engine)
    if arguments.detach:
        return _detached(engine, list(arguments.given))
    return _foreground(engine)


def _foreground(engine: Engine) -> int:
    logs.configure("ebb", "warning")
    live = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    if live:
        from deploy.live import Live

        shown = Live()
        runner = Runner(engine, shown.tell)
    else:
        shown = None
        runner = Runner(engine, view.say)

    def is_up() -> None:
        for line in _how_to_go_on(engine, detached=not live):
            (shown.tell if shown else view.say)(line)

    async def body() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, runner.roll)
        refreshing = asyncio.create_task(shown.refresh(runner)) if shown else None
        try:
            await runner.run(stop, adopt, is_up)
        finally:
            if refreshing is not None:
                refreshing.cancel()
                await asyncio.gather(refreshing, return_exceptions=True)

    try:
        adopt = runner.prepare()
        with shown or contextlib.nullcontext():
            asyncio.run(body())
    finally:
        runner.release()
    view.say(f"stopped; what was deployed is kept in {engine.root} for the next `ebb up`")
    return 0


def _detached(engine: Engine, given: list[str]) -> int:
    state = statefile.read(engine.state_file)
    if state is not None and state.phase == "up" and state.engine == engine and pids.alive(state.supervisor):
        view.say(f"up already, with these settings (pid {state.supervisor.pid})")
        for line in _how_to_go_on(engine, detached=True):
            view.say(line)
        return 0
    check_only = Runner(engine, view.say)
    try:
        check_only.prepare()
    finally:
        check_only.release()
    log = engine.logs / "ebb.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-P", "-m", "deploy.allinone", "up", *(word for word in given if word not in ("-d", "--detach"))]
    with open(log, "ab") as output:
        began = output.tell()
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=engine.root, start_new_session=True
        )
    return _follow_start(engine, child, log, began)


def _follow_start(engine: Engine, child: "subprocess.Popen[bytes]", log: Path, shown: int) -> int:
    """Pass on what the detached supervisor says until it is up (0) or has ended (1)."""
    deadline = time.monotonic() + DETACH_TIMEOUT_S
    while True:
        code = child.poll()
        with open(log, "rb") as file:
            file.seek(shown)
            fresh = file.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        shown += len(whole)
        sys.stdout.write(whole.decode("utf-8", "replace"))
        sys.stdout.flush()
        if code is not None:
            return 1
        state = statefile.read(engine.state_file)
        if state is not None and state.phase == "up" and state.supervisor.pid == child.pid and not whole:
            child.returncode = 0  # it is to outlive us: nothing to wait for
            return 0
        if time.monotonic() > deadline:
            _fail(f"not ready after {DETACH_TIMEOUT_S:g} s; it still tries: see `ebb status` and {log}", 1)
        time.sleep(0.05)


def down(arguments: argparse.Namespace) -> int:
    """Stop the engine of --run in order, also one whose supervisor was killed; 0 when nothing is left."""
    preflight.root_user()
    path = _state_file(arguments)
    state = statefile.read(path)
    if state is None:
        view.say(f"nothing runs here (no {path})")
        return 0
    if pids.send(state.supervisor, signal.SIGTERM):
        return _wait_for_end(path, state)
    if not any(pids.alive(child.who) for child in state.children) and not leftovers.find(state.engine):
        path.unlink(missing_ok=True)
        view.say("nothing runs here; the last `ebb up` " + ("failed" if state.phase == "failed" else "was killed"))
        return 0
    view.say(f"its `ebb up` (pid {state.supervisor.pid}) is gone; stopping what it left")
    stuck = asyncio.run(stop_leftovers(state, view.say))
    for line in stuck:
        view.say(f"left behind: {line}")
    return 1 if stuck else 0


def _wait_for_end(path: Path, state: EngineState) -> int:
    told: dict[str, str] = {}
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while pids.alive(state.supervisor):
        now = statefile.read(path)
        for child in now.children if now else []:
            if child.state in ("stopping", "stopped") and told.get(child.name) != child.state:
                told[child.name] = child.state
                view.say(f"{child.name:<11} {child.state}")
        if time.monotonic() > deadline:
            _fail(f"`ebb up` (pid {state.supervisor.pid}) has not ended after {STOP_TIMEOUT_S:g} s; see {state.engine.logs}", 1)
        time.sleep(0.05)
    stuck = leftovers.find(state.engine)
    for line in stuck:
        view.say(f"left behind: {line}")
    view.say(f"stopped; what was deployed is kept in {state.engine.root} for the next `ebb up`")
    return 1 if stuck else 0


def roll(arguments: argparse.Namespace) -> int:
    """Start the front door's workers anew, one after another, a new one before an old one stops: nothing is lost."""
    preflight.root_user()
    path = _state_file(arguments)
    state = statefile.read(path)
    if state is None or state.phase != "up" or not pids.send(state.supervisor, signal.SIGUSR1):
        _fail(f"no engine is up here ({path}); start one: sudo ebb up -d", 1)
    deadline = time.monotonic() + ROLL_TIMEOUT_S
    told: dict[str, str] = {}
    while True:
        now = statefile.read(path)
        for child in now.children if now else []:
            if child.name.startswith("ingress") and told.get(child.name, "running") != child.state:
                view.say(f"{child.name:<11} {child.state}")
            told[child.name] = child.state
        if now is None or not pids.alive(now.supervisor):
            _fail("the engine was stopped meanwhile", 1)
        if now.rolls > state.rolls:
            if now.roll_error:
                _fail(now.roll_error, 1)
            return 0
        if time.monotonic() > deadline:
            _fail(f"not done after {ROLL_TIMEOUT_S:g} s; see `ebb status` and {state.engine.logs}", 1)
        time.sleep(0.05)


def status(arguments: argparse.Namespace) -> int:
    """The components, then nodes and instances; 0 only when every component is healthy."""
    path = _state_file(arguments)
    state = statefile.read(path)
    if state is None:
        if arguments.output != "table":
            sys.stdout.write(view.encode({"phase": "down", "components": []}, arguments.output))
        else:
            sys.stderr.write(f"no engine runs here (no {path}); start one: sudo ebb up -d\n")
        return 1
    rows = view.rows(state, asyncio.run(problems(state)))
    healthy = state.phase == "up" and all(row.healthy for row in rows)
    cluster = view.cluster(state.engine)
    if arguments.output != "table":
        shown = {
            "phase": state.phase,
            "healthy": healthy,
            "url": state.engine.url(f"<service>.default.{state.engine.domain}"),
            "https": state.engine.secure_url(f"<service>.default.{state.engine.domain}") if state.engine.https_port else "",
            "api": state.engine.api,
            "engine": msgspec.to_builtins(state.engine),
            "components": [{**msgspec.to_builtins(row), "healthy": row.healthy} for row in rows],
            "cluster": cluster,
        }
        sys.stdout.write(view.encode(shown, arguments.output))
        return 0 if healthy else 1
    from rich.console import Console

    console = Console(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160)
    console.print(view.table(rows, time.time()))
    if state.phase != "up":
        console.print(f"\n{state.phase}: {state.message}" if state.message else f"\n{state.phase}", markup=False)
    console.print(f"\napi {state.engine.api}   apps {state.engine.url(f'SERVICE.default.{state.engine.domain}')}", markup=False)
    for line in view.cluster_lines(cluster):
        console.print(line)
    return 0 if healthy else 1


def trust(arguments: argparse.Namespace) -> int:
    """Make this machine trust the certificates of the engine's own authority; --remove: no longer."""
    root = arguments.root
    if root is None:
        state = statefile.read(_state_file(arguments))
        root = state.engine.root if state is not None else Engine().root
    work = trusting.distrust if arguments.remove else trusting.trust
    view.say(work(Path(os.path.abspath(root))))
    return 0


def _state_file(arguments: argparse.Namespace) -> Path:
    """By --run; else by --root, which remembers where its engine was last started; else the default."""
    run = arguments.run
    if run is None and arguments.root is not None:
        try:
            run = (Path(arguments.root) / "run-dir").read_text().strip()
        except OSError as error:
            raise preflight.Refused(
                f"--root {arguments.root} holds no engine ({error.strerror}); name it with --run DIR"
            ) from None
    return Path(os.path.abspath(run or os.environ.get("EBB_RUN", Engine().run))) / "state.json"


def _how_to_go_on(engine: Engine, detached: bool) -> list[str]:
    run = "" if engine.run == "/run/ebb" else f" --run {engine.run}"
    name = f"SERVICE.default.{engine.domain}"
    secure = [f"TLS:    {engine.secure_url(name)}   (once: sudo ebb trust{run}, or curl --cacert {engine.local_ca})"]
    return [
        f"up: the API is {engine.api}, apps answer at {engine.url(name)}",
        *(secure if engine.https_port else ()),
        f"log in: as root of this machine you are; the first admin's token is in {engine.admin_token} (ebb login --help)",
        f"go on:  ebb deploy hello --image IMAGE   (kn, kubectl: export KUBECONFIG={engine.kubeconfig})",
        f"look:   ebb status{run}   ebb services   ebb top      stop: {f'ebb down{run}' if detached else 'Ctrl-C'}",
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ebb", description="The whole engine on one machine.")
    commands = parser.add_subparsers(required=True, metavar="up|down|roll|status|trust")
    default = Engine()
    one = commands.add_parser("up", help="start and supervise the engine", description=up.__doc__)
    one.add_argument("-d", "--detach", action="store_true", help="return when it is ready; it runs on in the background")
    one.add_argument("--root", help=f"state that survives (default {default.root})")
    one.add_argument("--run", help=f"sockets, pids (default {default.run})")
    one.add_argument("--http", help=f"where apps are served (default {default.http})")
    one.add_argument("--https", help=f"where they are served with TLS, or off (default {default.https})")
    one.add_argument("--api", dest="listen_api", help="where the API listens, with TLS (default: --port-base of 127.0.0.1)")
    one.add_argument("--oidc-file", help="issuers whose tokens the API accepts")
    one.add_argument("--acme-email", help="get certificates for public hosts by ACME; its terms are agreed to with this")
    one.add_argument("--acme-directory", help="of another authority than Let's Encrypt")
    one.add_argument("--acme-ca-file", help="what that authority's own TLS is checked with")
    one.add_argument(
        "--port-base",
        type=int,
        help=f"first of twelve loopback ports, and one more a worker; the API has it (default {default.port_base})",
    )
    one.add_argument("--id", help=f"marks what is ours in the kernel, up to 6 characters (default {default.id})")
    one.add_argument("--subnet", help=f"addresses of instances (default {default.subnet})")
    one.add_argument("--domain", help=f"apps are SERVICE.PROJECT.DOMAIN (default {default.domain})")
    one.add_argument("--no-park", dest="park", action="store_false", default=None, help="keep no instances parked")
    one.add_argument("--parked-most", type=int, help="keep at most so many instances parked or frozen; 0: as memory allows")
    one.add_argument(
        "--project-processors", type=int, help="processors that one project's instances run on; 0: all (the default)"
    )
    one.add_argument("--pressure-file", help="where the kernel tells memory pressure; default /proc/pressure/memory")
    one.add_argument("--insecure-registries", help="host:port,… of image registries without TLS")
    one.add_argument("--allow-private-registries", help="networks of image registries that are not on the internet")
    one.add_argument("--workers", type=int, help="processes of the front door (default: half as many as cores)")
    one.add_argument(
        "--first-uid",
        type=int,
        help=f"user of the first process, the others have the next; need not be in /etc/passwd; 0: root (default {default.first_uid})",
    )
    one.add_argument("--identity-life-s", type=float, help="how long certificates between the processes last (default: a day)")
    one.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    one.set_defaults(does=up)
    two = commands.add_parser("down", help="stop the engine", description=down.__doc__)
    two.set_defaults(does=down)
    three = commands.add_parser("status", help="what runs and how it is", description=status.__doc__)
    three.add_argument("-o", "--output", choices=("table", "json", "yaml"), default="table")
    three.set_defaults(does=status)
    four = commands.add_parser("trust", help="trust this engine's certificates", description=trust.__doc__)
    four.add_argument("--remove", action="store_true", help="trust them no longer")
    four.set_defaults(does=trust)
    five = commands.add_parser("roll", help="start the front door's workers anew, losing nothing", description=roll.__doc__)
    five.set_defaults(does=roll)
    for command in (one, two, three, four, five):
        command.set_defaults(usage=command)
    for command in (two, three, four, five):
        command.add_argument("--run", help=f"sockets, pids of the engine meant (default {default.run}; EBB_RUN)")
        command.add_argument("--root", help="the engine meant, by where it keeps its state")
    return parser


def _fail(message: str, code: int) -> NoReturn:
    sys.stderr.write(f"ebb: {message}\n")
    raise SystemExit(code)


if __name__ == "__main__":
    main()
