"""Commands that go on: logs, top."""

import sys
import time
from collections.abc import Iterator

from cli import rows, show
from cli.client import EBB, Api, Object

TOP = ("SERVICE", "REVISION", "RPS", "CONCURRENCY", "QUEUED", "DESIRED", "INSTANCES")
COLOURS = ("36", "33", "32", "35", "34")


def logs(
    api: Api, service: str, *, follow: bool, tail: int, revision: str, instance: str, since_s: float, form: show.Form
) -> None:
    """Print a service's log lines; with `follow` until Ctrl-C."""
    api.named("services", service)
    if revision:
        api.named("revisions", revision, {"labelSelector": f"serving.knative.dev/service={service}"})
    params = {"tail": str(tail)}
    params |= {key: value for key, value in (("revision", revision), ("instance", instance)) if value}
    if since_s:
        params["since_s"] = f"{since_s:g}"
    if follow:
        params["follow"] = "true"
    colours: dict[str, str] = {}
    coloured = sys.stdout.isatty()
    for item in api.lines(api.own(f"services/{service}/logs"), params, None if follow else 30):
        if form is show.Form.JSON:
            import json

            sys.stdout.write(json.dumps(item, ensure_ascii=False) + "\n")
        else:
            sys.stdout.write(log_line(item, colours, coloured))
        sys.stdout.flush()


def log_line(item: Object, colours: dict[str, str], coloured: bool) -> str:
    """`13:00:00.123 hello-00001-x7k2 text`; what an app writes cannot drive the terminal."""
    at = item.get("at", 0.0)
    stamp = time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at % 1 * 1000):03d}"
    name = str(item.get("instance", ""))
    said = show.plain(str(item.get("line", "")))
    if coloured:
        colour = colours.setdefault(name, COLOURS[len(colours) % len(COLOURS)])
        name = f"\033[{colour}m{name}\033[0m"
    return f"{stamp} {name} {'! ' if item.get('stream') == 'stderr' else ''}{said}\n"


def top(api: Api, *, once: bool, everywhere: bool, form: show.Form) -> None:
    """What goes on now, drawn anew each second until Ctrl-C; `once` prints one snapshot."""
    snapshots = api.lines(f"{EBB}/top", {} if everywhere else {"project": api.project}, 30)
    if form is not show.Form.TABLE:
        for snapshot in snapshots:
            show.data(snapshot, form)
            if once:
                return
    elif once or not sys.stdout.isatty():
        for snapshot in snapshots:
            sys.stdout.write(_top_text(snapshot))
            sys.stdout.flush()
            if once:
                return
    else:
        _live(snapshots)


def _live(snapshots: Iterator[Object]) -> None:
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False, screen=True) as live:
        for snapshot in snapshots:
            live.update(Text(_top_text(snapshot), no_wrap=True), refresh=True)


def _top_text(snapshot: Object) -> str:
    found = snapshot.get("revisions", [])
    running = sum(count for item in found for count in (item.get("instances") or {}).values())
    rps, queued = (sum(item.get(key, 0) for item in found) for key in ("rps", "queued"))
    head = time.strftime("%H:%M:%S", time.localtime(snapshot.get("at", 0)))
    nodes = len(snapshot.get("nodes", []))
    line = f"{head}  {nodes} node{'' if nodes == 1 else 's'}  {running} instances  {rps:.1f} requests/s  {queued} queued\n\n"
    return line + show.text(TOP, rows.top(snapshot))
