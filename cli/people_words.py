"""The words and flags of `ebb login`, `logout`, `whoami`, `token`, `user` and `role`. What they do is in `cli/people.py`."""

from typing import Annotated

import typer

from cli.flags import Address, Output, Project
from cli.show import Form

tokens = typer.Typer(no_args_is_help=True, help="API tokens: create, list, revoke.", rich_markup_mode=None)
users = typer.Typer(no_args_is_help=True, help="Users and robots: add, list, disable, enable, remove.", rich_markup_mode=None)
roles = typer.Typer(no_args_is_help=True, help="Roles in a project: grant, revoke, list.", rich_markup_mode=None)
Principals = Annotated[list[str], typer.Argument(metavar="PRINCIPAL...", help="user:NAME or robot:NAME.")]
Role = Annotated[str, typer.Argument(help="viewer, developer, admin, invoker; or platform-admin.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `ebb`."""
    app.command()(login)
    app.command()(logout)
    app.command()(whoami)
    app.add_typer(tokens, name="token")
    app.add_typer(users, name="user")
    app.add_typer(roles, name="role")


def login(
    url: Annotated[str, typer.Argument(metavar="URL", help="The API's address, such as https://ebb.example.org:8090.")],
    token: Annotated[str, typer.Option(help="The token; - reads it from stdin, where `ps` does not show it.")] = "-",
    ca_file: Annotated[str, typer.Option(help="The engine's own authority (its ca.crt), if the system does not know it.")] = "",
    server_name: Annotated[str, typer.Option(help="What the API's certificate names, if not the URL's host.")] = "",
) -> None:
    """Log in at an API: check a token there and use both from now on."""
    from cli import people

    people.login(url, token, ca_file, server_name)


def logout(url: Annotated[str, typer.Argument(metavar="[URL]", help="Default: the last login.")] = "") -> None:
    """Forget a token here."""
    from cli import people

    people.logout(url)


def whoami(output: Output = Form.TABLE, api: Address = "") -> None:
    """Who you are at the API, and what you may."""
    from cli import commands, people

    people.whoami(commands.connect(api, "default"), output)


@tokens.command("create")
def token_create(
    principal: Annotated[str, typer.Option("--for", help="user:NAME or robot:NAME (default: yourself).")] = "",
    scope: Annotated[list[str] | None, typer.Option(help="A project where it counts; repeat (default: all).")] = None,
    role: Annotated[str, typer.Option(help="The most it may: viewer, developer, admin, invoker.")] = "",
    ttl: Annotated[str, typer.Option(help="How long it counts: 90d, 12h, 30m, never.")] = "90d",
    note: Annotated[str, typer.Option(help="What it is for.")] = "",
    output: Output = Form.TABLE,
    api: Address = "",
) -> None:
    """Make a token and print it, this once."""
    from cli import commands, people

    people.token_create(commands.connect(api, "default"), principal, scope or [], role, ttl, note, output)


@tokens.command("list")
def token_list(
    everybody: Annotated[bool, typer.Option("--all", help="Everybody's.")] = False,
    ended: Annotated[bool, typer.Option("--ended", help="Also those that count no longer.")] = False,
    output: Output = Form.TABLE,
    api: Address = "",
) -> None:
    """Your tokens; never their secrets."""
    from cli import commands, people

    people.token_list(commands.connect(api, "default"), everybody, ended, output)


@tokens.command("identity")
def token_identity(
    audience: Annotated[str, typer.Option(help="URL of the service that is to be called.")],
    output: Output = Form.TABLE,
    api: Address = "",
) -> None:
    """Print an identity token of yours, for an hour of calls to one private service."""
    from cli import commands, people

    people.token_identity(commands.connect(api, "default"), audience, output)


@tokens.command("revoke")
def token_revoke(ids: Annotated[list[str], typer.Argument(metavar="ID...")], api: Address = "") -> None:
    """End tokens, and those that were made with them, at once."""
    from cli import commands, people

    people.token_revoke(commands.connect(api, "default"), ids)


@users.command("add")
def user_add(
    principal: Annotated[str, typer.Argument(help="user:NAME or robot:NAME.")],
    note: Annotated[str, typer.Option(help="Who that is.")] = "",
    api: Address = "",
) -> None:
    """Add a user or robot."""
    from cli import commands, people

    people.user_add(commands.connect(api, "default"), principal, note)


@users.command("list")
def user_list(output: Output = Form.TABLE, api: Address = "") -> None:
    """Users and robots, and their roles."""
    from cli import commands, people

    people.user_list(commands.connect(api, "default"), output)


@users.command("disable")
def user_disable(principals: Principals, api: Address = "") -> None:
    """Let them in no longer; nothing is forgotten."""
    from cli import commands, people

    people.user_change(commands.connect(api, "default"), principals, "disable")


@users.command("enable")
def user_enable(principals: Principals, api: Address = "") -> None:
    """Let them in again."""
    from cli import commands, people

    people.user_change(commands.connect(api, "default"), principals, "enable")


@users.command("remove")
def user_remove(principals: Principals, api: Address = "") -> None:
    """Remove them, with roles and tokens."""
    from cli import commands, people

    people.user_change(commands.connect(api, "default"), principals, "remove")


@roles.command("grant")
def role_grant(role: Role, principals: Principals, project: Project = "default", api: Address = "") -> None:
    """Give a role in the project; platform-admin is everywhere."""
    from cli import commands, people

    people.role_change(commands.connect(api, project), role, principals, grant=True)


@roles.command("revoke")
def role_revoke(role: Role, principals: Principals, project: Project = "default", api: Address = "") -> None:
    """Take a role away; streams that are open end with it."""
    from cli import commands, people

    people.role_change(commands.connect(api, project), role, principals, grant=False)


@roles.command("list")
def role_list(
    platform: Annotated[bool, typer.Option("--platform", help="Those of the platform.")] = False,
    output: Output = Form.TABLE,
    project: Project = "default",
    api: Address = "",
) -> None:
    """Who has which role in the project."""
    from cli import commands, people

    people.role_list(commands.connect(api, project), platform, output)
