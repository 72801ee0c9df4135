"""Flags that nearly every command has."""

from typing import Annotated

import typer

from cli.show import Form

Project = Annotated[str, typer.Option("--project", "--namespace", "-n", envvar="EBB_PROJECT", help="Project (namespace).")]
Shared = Annotated[bool, typer.Option("--shared", help="Of all projects, not of one: for who runs the platform.")]
Address = Annotated[str, typer.Option("--api", help="The API's URL (EBB_API; default: the engine on this machine).")]
Output = Annotated[Form, typer.Option("--output", "-o", help="How to print.")]
