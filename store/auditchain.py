"""The chain of an audit log: every line holds the digest of the one before, so that none can be changed or taken out unseen. Pure.

A line is one JSON object: `seq` counts up by one, `prev` is the digest of the line before, `hash` is this line's own: SHA-256 over
the object's other fields as JSON with sorted keys. The first line of all has FIRST as `prev`.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

FIRST = "0" * 64
Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain is: the number and digest of its last line."""

    seq: int = 0
    hash: str = FIRST


def digest(line: Line) -> str:
    """What `hash` must be."""
    said = {name: value for name, value in line.items() if name != "hash"}
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()).hexdigest()


def link(line: Line, head: Head) -> tuple[Line, Head]:
    """`line` as the next after `head`, and the new head."""
    whole = {"seq": head.seq + 1, **line, "prev": head.hash}
    whole["hash"] = digest(whole)
    return whole, Head(head.seq + 1, whole["hash"])


def head_of(text: str) -> Head:
    """A head as a person keeps it, `SEQ:DIGEST`. Raises ValueError."""
    match = re.fullmatch(r"([1-9][0-9]{0,17}):([0-9a-f]{64})", text.strip())
    if match is None:
        raise ValueError(f"{text[:100]!r}: want SEQ:DIGEST, as ebb audit --verify prints it")
    return Head(int(match[1]), match[2])


def check(lines: Iterable[Line], kept: Head | None = None) -> tuple[int, Head, str]:
    """How many lines were looked at, the head they lead to, and what is wrong; the last is empty when all is well.

    The first line is taken as it is: what stood before it may have been rotated away. A chain alone does not show that its end
    was cut off, or that all of it was made anew: `kept`, a head it once had, does.
    """
    count, head, met = 0, Head(), kept is None
    for line in lines:
        count += 1
        at = f"line {count} (seq {line.get('seq')})"
        if count > 1 and line.get("seq") != head.seq + 1:
            return count, head, f"{at}: comes after seq {head.seq}: lines were taken out, added or moved"
        if count > 1 and line.get("prev") != head.hash:
            return count, head, f"{at}: does not follow from the line before: one of the two was changed"
        if line.get("seq") == 1 and line.get("prev") != FIRST:
            return count, head, f"{at}: is the first and says that there was one before"
        if line.get("hash") != digest(line):
            return count, head, f"{at}: was changed: its digest is another"
        head = Head(int(line["seq"]), str(line["hash"]))
        if kept is not None and head.seq == kept.seq:
            met = head.hash == kept.hash
            if not met:
                return count, head, f"{at}: its digest was {kept.hash}: the log was made anew from there or before"
    if kept is not None and not met:
        return count, head, _unmet(count, head, kept)
    return count, head, ""


def _unmet(count: int, head: Head, kept: Head) -> str:
    if head.seq < kept.seq:
        return f"it ends at seq {head.seq} and once went to seq {kept.seq}: its last {kept.seq - head.seq} lines were cut off"
    return f"seq {kept.seq} is no longer kept: the oldest line is seq {head.seq - count + 1}; check against a later head"
