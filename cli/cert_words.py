"""The words and flags of `ebb cert`. What they do is in `cli/certs.py`, loaded when one is run."""

from pathlib import Path
from typing import Annotated

import typer

from cli.flags import Address, Output, Project
from cli.show import Form

app = typer.Typer(no_args_is_help=True, help="Certificates for TLS: add, list, delete.", rich_markup_mode=None)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Name of the Secret that will hold it.")],
    cert: Annotated[Path, typer.Option(help="PEM: the certificate, then its chain.")],
    key: Annotated[Path, typer.Option(help="PEM: its private key.")],
    replace: Annotated[bool, typer.Option("--replace", help="Replace one that exists; no connection is lost.")] = False,
    project: Project = "default",
    api: Address = "",
) -> None:
    """Serve a certificate for the hosts of this project that it names: a Secret of type kubernetes.io/tls."""
    from cli import certs, commands

    certs.add(commands.connect(api, project), name, cert, key, replace=replace)


@app.command("list")
def list_(output: Output = Form.TABLE, project: Project = "default", api: Address = "") -> None:
    """Certificates of the project and of the engine: for which hosts, from where, until when, and what is wrong."""
    from cli import certs, commands

    certs.list_(commands.connect(api, project), output)


@app.command()
def delete(
    names: Annotated[list[str], typer.Argument(help="Certificates that were added.")], project: Project = "default",
    api: Address = "",
) -> None:  # fmt: skip
    """Delete certificates that were added. Connections that stand are kept."""
    from cli import certs, commands

    certs.delete(commands.connect(api, project), names)
