"""What `ebb audit` does: shows the log, and checks its chain here, from the lines alone."""

import json
import sys
from collections.abc import Iterator

from cli.client import EBB, Api, Object
from cli.errors import BadUsage, Refused
from cli.show import Form
from store import auditchain


def lines(api: Api, project: str, tail: int, follow: bool, form: Form) -> None:
    """Print the log as it is asked for, line by line."""
    path = api.own("audit") if project else f"{EBB}/audit"
    params = {"tail": str(tail)} | ({"follow": "true"} if follow else {})
    for line in api.lines(path, params, None if follow else 60):
        sys.stdout.write(json.dumps(line) + "\n" if form is not Form.TABLE else text(line))
        sys.stdout.flush()


def text(line: Object) -> str:
    """`2026-11-26T06:00:00Z 201 user:ana create services shop/hello from 127.0.0.1 c-abc`."""
    name, project = line.get("name", ""), line.get("project", "")
    what = f"{project}/{name}" if project and name else project or name
    said = [
        line.get("time", ""),
        str(line.get("code", "")),
        line.get("who") or "nobody",
        line.get("action", ""),
        line.get("kind", ""),
        what,
    ]
    more = [f"from {line.get('address', '')}", line.get("cause_id", "")]
    more += [f"({line['why']})"] if line.get("why") else []
    more += [f"[{line['left_out']} more refusals before this one are not shown]"] if line.get("left_out") else []
    words = " ".join(word for word in (*said, *more) if word)
    return "".join(c if c.isprintable() else "?" for c in words) + "\n"


def verify(api: Api, since: str) -> None:
    """Say how far the chain holds, and that it goes on from the head `since` (SEQ:DIGEST; empty: none was kept).

    Raises Refused when it does not, BadUsage.
    """
    try:
        kept = auditchain.head_of(since) if since else None
    except ValueError as error:
        raise BadUsage(f"--since {error}") from None

    def every() -> Iterator[Object]:
        return api.lines(f"{EBB}/audit", {}, 60)

    count, head, wrong = auditchain.check(every(), kept)
    if wrong:
        raise Refused(f"the audit log does not hold: {wrong}")
    sys.stdout.write(f"{count} lines hold, up to seq {head.seq} with digest {head.hash}\n")
    if count:
        sys.stdout.write(f"keep this elsewhere, and later: ebb audit --verify --since {head.seq}:{head.hash}\n")
