"""The words and flags of `ebb project` and `ebb audit`. What they do is in `cli/projects.py` and `cli/audit.py`."""

from typing import Annotated

import typer

from cli.flags import Address, Output
from cli.show import Form

projects = typer.Typer(no_args_is_help=True, help="Projects: create, list, show, set, delete.", rich_markup_mode=None)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the project.")]
Weight = Annotated[int | None, typer.Option(help="Its part where projects compete (1).")]
Quotas = Annotated[list[str] | None, typer.Option("--quota", help="WHAT=MOST, such as services=20, memory_bytes=8Gi; 0: none.")]
Policies = Annotated[list[str] | None, typer.Option("--policy", help="WHAT=VALUE, such as egress=none, runtime=gvisor.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `ebb`."""
    app.add_typer(projects, name="project")
    app.command()(audit)


@projects.command()
def create(name: Name, weight: Weight = None, quota: Quotas = None, policy: Policies = None, api: Address = "") -> None:
    """Create a project."""
    from cli import commands
    from cli import projects as work

    work.create(commands.connect(api, name), name, work.wanted(weight, quota or [], policy or []))


@projects.command("list")
def list_(output: Output = Form.TABLE, api: Address = "") -> None:
    """Projects that are yours."""
    from cli import commands
    from cli import projects as work

    work.list_(commands.connect(api, "default"), output)


@projects.command()
def show(name: Name, output: Output = Form.YAML, api: Address = "") -> None:
    """A project: weight, quota, policy, and what it has of what is limited."""
    from cli import commands
    from cli import projects as work

    work.show_one(commands.connect(api, name), name, output)


@projects.command("set")
def set_(name: Name, weight: Weight = None, quota: Quotas = None, policy: Policies = None, api: Address = "") -> None:
    """Change a project's weight, quota and policy; what is not named stays."""
    from cli import commands
    from cli import projects as work

    work.change(commands.connect(api, name), name, work.wanted(weight, quota or [], policy or []))


@projects.command()
def delete(names: Annotated[list[str], typer.Argument(metavar="NAME...")], api: Address = "") -> None:
    """Delete projects that are empty."""
    from cli import commands
    from cli import projects as work

    work.delete(commands.connect(api, "default"), names)


def audit(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Check that no line was changed or taken out.")] = False,
    since: Annotated[str, typer.Option(help="With --verify: SEQ:DIGEST that it printed before; shows a cut-off end.")] = "",
    tail: Annotated[int, typer.Option(help="Only so many of the last lines; 0: all.")] = 100,
    project: Annotated[str, typer.Option("--project", "--namespace", "-n", help="Only of this project.")] = "",
    output: Output = Form.TABLE,
    api: Address = "",
) -> None:
    """Who did what to which object, and what came of it."""
    from cli import audit as work
    from cli import commands

    connected = commands.connect(api, project or "default")
    if verify or since:
        work.verify(connected, since)
    else:
        work.lines(connected, project, tail, follow, output)
