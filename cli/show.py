"""What a command prints: a table for people; JSON, YAML or names for scripts."""

import json
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

from cli.errors import BadUsage


class Form(StrEnum):
    """The values of -o."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


def data(value: Any, form: Form) -> None:
    """Print `value` as JSON or YAML."""
    if form is Form.YAML:
        import yaml

        sys.stdout.write(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
    else:
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def listing(
    form: Form, value: Any, head: Sequence[str], rows: Callable[[], Sequence[Sequence[str]]], names: Callable[[], Sequence[str]]
) -> None:
    """One listing in the form asked for. `rows` and `names` are called only when needed."""
    if form in (Form.JSON, Form.YAML):
        data(value, form)
    elif form is Form.NAME:
        sys.stdout.write("".join(f"{name}\n" for name in names()))
    else:
        table(head, rows())


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns padded to their widest value, as `kubectl` does: it survives being piped and cut."""
    sys.stdout.write(text(head, rows))


def text(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table as text. Control characters in values are shown as `?`: they come from what users deploy."""
    clean = [["".join(c if c.isprintable() else "?" for c in value) for value in row] for row in [list(head), *rows]]
    widths = [max(len(row[i]) for row in clean) for i in range(len(head))]
    return "".join("  ".join(v.ljust(w) for v, w in zip(row, widths, strict=True)).rstrip() + "\n" for row in clean)


def plain(text: str) -> str:
    """A line that an app wrote, so that it cannot drive the terminal."""
    return "".join(each if each.isprintable() or each == "\t" else "?" for each in text.rstrip("\n"))


def only_data(form: Form, command: str) -> None:
    """Raises BadUsage for -o name where there are no names."""
    if form is Form.NAME:
        raise BadUsage(f"ebb {command}: -o name makes no sense here; want table, json or yaml")
