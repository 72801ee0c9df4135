"""The words and flags of `ebb secret`. What they do is in `cli/secrets.py`, loaded when one is run."""

from typing import Annotated

import typer

from cli.flags import Address, Output, Project
from cli.show import Form

app = typer.Typer(no_args_is_help=True, help="Secrets: create, list, versions, delete, rotate.", rich_markup_mode=None)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the Secret.")],
    values: Annotated[list[str] | None, typer.Argument(help="KEY=VALUE; `ps` shows it while this runs.")] = None,
    from_file: Annotated[list[str] | None, typer.Option(help="KEY=FILE, or FILE; KEY=- is stdin. Repeat.")] = None,
    docker_server: Annotated[str, typer.Option(help="Make it a login for this image registry.")] = "",
    docker_username: Annotated[str, typer.Option(help="The login's user.")] = "",
    docker_password_stdin: Annotated[bool, typer.Option("--docker-password-stdin", help="Read its password.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace one that exists; apps get it at their next start.")
    ] = False,
    immutable: Annotated[
        bool, typer.Option("--immutable", help="It can be deleted, but never say anything else: a version.")
    ] = False,
    project: Project = "default",
    api: Address = "",
) -> None:
    """Make a Secret: values for `ebb deploy --set-secrets`, or a registry's login for `--pull-secret`."""
    from cli import commands, secrets

    secrets.create(
        commands.connect(api, project), name, values or [], from_file or [], server=docker_server, user=docker_username,
        password_stdin=docker_password_stdin, replace=replace, immutable=immutable,
    )  # fmt: skip


@app.command("list")
def list_(output: Output = Form.TABLE, project: Project = "default", api: Address = "") -> None:
    """Secrets of the project and the names of their keys; never a value."""
    from cli import commands, secrets

    secrets.list_(commands.connect(api, project), output)


@app.command()
def versions(
    name: Annotated[str, typer.Argument(help="Secret, such as db, whose versions are db-v1, db-v2, …")],
    output: Output = Form.TABLE,
    project: Project = "default",
    api: Address = "",
) -> None:
    """Versions of a Secret, the latest first: immutable ones that are called after it. Never a value."""
    from cli import commands, secrets

    secrets.versions(commands.connect(api, project), name, output)


@app.command()
def delete(
    names: Annotated[list[str], typer.Argument(help="Secrets to delete.")], project: Project = "default", api: Address = ""
) -> None:
    """Delete Secrets. Instances that run keep what they were started with; new ones cannot start."""
    from cli import commands, secrets

    secrets.delete(commands.connect(api, project), names)


@app.command()
def rotate(
    no_new_key: Annotated[bool, typer.Option("--no-new-key", help="Seal with the newest key there is.")] = False,
    retire: Annotated[
        bool, typer.Option("--retire", help="Then forget the keys that no Secret needs; older backups need them.")
    ] = False,
    api: Address = "",
) -> None:
    """Seal all Secrets of all projects anew, with a new key in the registry's key file."""
    from cli import commands, secrets

    secrets.rotate(commands.connect(api, "default"), new_key=not no_new_key, retire=retire)
