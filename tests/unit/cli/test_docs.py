"""The documentation knows every command and flag of `ebb`."""

from pathlib import Path

import click
import pytest
import typer

from cli.main import app

DOCS = (Path(__file__).parents[3] / "docs" / "commands.md").read_text()


def commands() -> list[tuple[str, click.Command]]:
    root = typer.main.get_command(app)
    found: list[tuple[str, click.Command]] = []
    for name, command in getattr(root, "commands", {}).items():
        inner = getattr(command, "commands", None)
        found += [(f"{name} {word}", one) for word, one in inner.items()] if inner else [(name, command)]
    return found


@pytest.mark.parametrize(("name", "command"), commands(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_command_and_flag_is_documented(name: str, command: click.Command) -> None:
    assert f"ebb {name}" in DOCS
    flags = [flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts) if flag[0] == "-"]
    missing = [flag for flag in flags if f"`{flag}" not in DOCS]
    assert not missing, f"docs/commands.md does not mention, of ebb {name}: {missing}"
