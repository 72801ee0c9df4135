"""The words and flags of `ebb domain`. What they do is in `cli/domains.py`, loaded when one is run."""

from typing import Annotated

import typer

from cli.flags import Address, Output, Project
from cli.show import Form

app = typer.Typer(no_args_is_help=True, help="Hosts of your own for services: add, list, delete.", rich_markup_mode=None)


@app.command()
def add(
    host: Annotated[str, typer.Argument(metavar="HOST", help="shop.example, or '*.shop.example' for all below it.")],
    service: Annotated[str, typer.Option("--service", "--ref", help="The service that answers.")],
    path: Annotated[
        list[str] | None, typer.Option("--path", help="/PREFIX=SERVICE[:strip]: what begins so goes there; repeat.")
    ] = None,
    tls_secret: Annotated[
        str, typer.Option("--tls-secret", "--tls", help="Secret with its certificate (kubernetes.io/tls).")
    ] = "",
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return as soon as it is written.")] = False,
    wait_timeout: Annotated[float, typer.Option(help="Seconds to wait until it is ready.")] = 20,
    project: Project = "default",
    api: Address = "",
) -> None:
    """Give a service a host of the world's, or change where that leads. The first project to claim a host has it."""
    from cli import commands, domains

    connected = commands.connect(api, project)
    domains.add(connected, host, service, path or [], tls_secret, 0 if no_wait else wait_timeout)


@app.command("list")
def list_(
    everywhere: Annotated[bool, typer.Option("--all-projects", "-A", help="Of all projects.")] = False,
    output: Output = Form.TABLE,
    project: Project = "default",
    api: Address = "",
) -> None:
    """Hosts, what they lead to, and whether they do."""
    from cli import commands, domains

    domains.list_(commands.connect(api, project), everywhere, output)


@app.command()
def delete(
    hosts: Annotated[list[str], typer.Argument(metavar="HOST...", help="Hosts to let go.")],
    project: Project = "default",
    api: Address = "",
) -> None:
    """Let hosts go. Another project that waits for one gets it."""
    from cli import commands, domains

    domains.delete(commands.connect(api, project), hosts)
