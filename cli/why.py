"""`ebb why`: why a service has the instances it has."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from cli import show
from cli.client import Api
from cli.show import Form


def why(api: Api, name: str, form: Form, last: int) -> None:
    """Print the profile and the `last` decisions, with their steps, of each revision of the service."""
    show.only_data(form, "why")
    found = api.get(api.own(f"services/{name}/why"))
    if form is not Form.TABLE:
        show.data(found, form)
        return
    sys.stdout.write("\n".join(_revision(each, last) for each in found["revisions"]))


def _revision(told: Mapping[str, Any], last: int) -> str:
    lines = [f"{told['revision']}: {told.get('ready', 0)} ready, {told.get('starting', 0)} starting"]
    lines += [f"  {line}" for line in habits(told.get("profile") or {})]
    decisions = (told.get("decisions") or [])[-last:]
    if not decisions:
        lines.append("  nothing was decided since the autoscaler started")
    for made in decisions:
        at = time.strftime("%H:%M:%S", time.localtime(made["at"]))
        room = made.get("excess_burst_capacity")
        burst = f", burst capacity {room:+g}" if room else ""
        did = f": {made['outcome']}" if made.get("outcome") else ""
        lines.append(
            f"  {at}  {made['desired']} wanted, {made['reason']} ({made['ready']} ready, {made['starting']} starting{burst}){did}"
        )
        lines += [f"            {step['rule']:18} {step['value']:>5g}  {step['why']}" for step in made.get("steps") or []]
    return "".join("".join(c if c.isprintable() else "?" for c in line) + "\n" for line in lines)


def habits(profile: Mapping[str, float]) -> list[str]:
    """The profile in words."""
    lines = []
    if profile.get("idle_seen"):
        spans = ", ".join(f"{share} % within {profile[f'idle_p{share}_s']:g} s" for share in (5, 50, 95))
        lines.append(f"idle {profile['idle_seen']:g} times: {spans}")
    if profile.get("call_s"):
        bend = f"; they take twice as long from {profile['bend']:g} in an instance on" if profile.get("bend") else ""
        lines.append(f"calls take {profile['call_s'] * 1000:.0f} ms{bend}")
    if profile.get("memory_bytes"):
        mib = profile["memory_bytes"] / (1 << 20)
        asked = f"--memory {1.25 * mib:.0f}Mi --cpu {max(10, 1.25 * profile['cpu_m']):.0f}m would be enough as requests"
        lines.append(f"an instance holds {mib:.0f}Mi and uses {profile['cpu_m']:.0f}m of CPU: {asked}")
    if profile.get("call_cpu_m") or profile.get("call_memory_bytes"):
        took = f" ({profile['call_cpu_s'] * 1000:.1f} ms of CPU each)" if profile.get("call_cpu_s") else ""
        more = profile.get("call_memory_bytes", 0) / (1 << 20)
        lines.append(f"a call at once more takes {profile.get('call_cpu_m', 0):.0f}m of CPU{took} and {more:.1f}Mi")
    if profile.get("start_s"):
        phases = [(n[6:-2], v) for n, v in profile.items() if n.startswith("start_") and n != "start_s"]
        by = " (" + ", ".join(f"{name} {value * 1000:.1f}" for name, value in phases) + ")" if phases else ""
        lines.append(f"starts in {profile['start_s'] * 1000:.0f} ms{by}")
    return lines
