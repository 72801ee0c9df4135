"""The commands of `ebb`: words and flags. What they do is in the modules beside."""

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from cli import cert_words, domain_words, people_words, project_words, secret_words
from cli.errors import BadUsage, Refused
from cli.flags import Address, Output, Project, Shared
from cli.show import Form

HANDED_OVER = ("up", "down", "roll", "status", "trust")

app = typer.Typer(
    name="ebb", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None,
    context_settings={"max_content_width": 110, "help_option_names": ["-h", "--help"]},
    help="Runs container images as serverless apps on your own Linux machines.\n\n"
    "The engine itself: ebb up | down | roll | status | trust (each with --help).",
)  # fmt: skip
image_app = typer.Typer(no_args_is_help=True, help="Images on the nodes: import, list, delete.", rich_markup_mode=None)
app.add_typer(image_app, name="image")
app.add_typer(secret_words.app, name="secret")
app.add_typer(cert_words.app, name="cert")
app.add_typer(domain_words.app, name="domain")
people_words.register(app)
project_words.register(app)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the service.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these.")]


def main() -> None:
    """Entry point: run a command, end with its exit code (0 done, 1 refused, 2 bad usage)."""
    if len(sys.argv) > 1 and sys.argv[1] in HANDED_OVER:
        os.execv(sys.executable, [sys.executable, "-P", "-m", "deploy.allinone", *sys.argv[1:]])
    if "_EBB_COMPLETE" in os.environ:
        from typer._completion_classes import completion_init

        completion_init()
    try:
        app(prog_name="ebb")
    except Refused as error:
        _end(f"ebb: {error}", 1)
    except BadUsage as error:
        _end(f"ebb: {error}", 2)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None


def _end(message: str, code: int) -> NoReturn:
    sys.stderr.write(message + "\n")
    raise SystemExit(code)


# -- the engine: shown in help and completion, run by deploy.allinone (see `main`) ----------------------------------------------


@app.command(add_help_option=False)
def up() -> None:
    """Start the engine on this machine; -d: in the background."""


@app.command(add_help_option=False)
def down() -> None:
    """Stop the engine on this machine; what was deployed is kept."""


@app.command(add_help_option=False)
def roll() -> None:
    """Start the front door's workers anew, one after another; no request is lost."""


@app.command(add_help_option=False)
def status() -> None:
    """What runs on this machine and how it is."""


@app.command(add_help_option=False)
def trust() -> None:
    """Make this machine trust the engine's own certificates."""


# -- services -------------------------------------------------------------------------------------------------------------------


@app.command()
def deploy(
    name: Name,
    image: Annotated[str, typer.Option(help="Image to run: name:tag, host/name:tag, or by digest.")] = "",
    archive: Annotated[Path | None, typer.Option(help="OCI or `docker save` archive to import and run.")] = None,
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="KEY=VALUE; KEY- removes it.")] = None,
    set_secrets: Annotated[list[str] | None, typer.Option(help="ENV=SECRET:KEY; repeat, or with commas.")] = None,
    pull_secret: Annotated[list[str] | None, typer.Option(help="Secret with the login of the image's registry.")] = None,
    port: Annotated[int | None, typer.Option(help="Port the app listens on ($PORT).")] = None,
    tcp: Annotated[int | None, typer.Option(help="Raw TCP, on this port of the front door; 0: HTTP again.")] = None,
    concurrency: Annotated[int | None, typer.Option("--concurrency", "--concurrency-limit", help="Requests at once.")] = None,
    min_scale: Annotated[int | None, typer.Option("--min-scale", "--min-instances", "--scale-min", help="At least.")] = None,
    max_scale: Annotated[int | None, typer.Option("--max-scale", "--max-instances", "--scale-max", help="At most.")] = None,
    timeout: Annotated[int | None, typer.Option(help="Seconds a request may take.")] = None,
    cpu: Annotated[str, typer.Option(help="CPU limit, such as 1 or 500m.")] = "",
    memory: Annotated[str, typer.Option(help="Memory limit, such as 512Mi.")] = "",
    execution_environment: Annotated[str, typer.Option(help="gen2, or in gVisor: gen1, sandboxed.")] = "",
    ingress: Annotated[str, typer.Option(help="Who reaches it: all, internal (other services), none.")] = "",
    unauthenticated: Annotated[
        bool | None, typer.Option("--allow-unauthenticated/--no-allow-unauthenticated", help="Whether callers need no token.")
    ] = None,
    invoker: Annotated[
        list[str] | None, typer.Option(help="Who may call it: user:ana, service:PROJECT/NAME; NAME- removes.")
    ] = None,
    egress: Annotated[str, typer.Option(help="Where it may connect to: open, private, none, or networks.")] = "",
    requests_per_second: Annotated[float | None, typer.Option(help="At most so many; 0: no limit.")] = None,
    no_traffic: Annotated[bool, typer.Option("--no-traffic", help="Leave traffic where it is.")] = False,
    tag: Annotated[str, typer.Option(help="Give the new revision a host of its own: TAG-NAME.…")] = "",
    revision_suffix: Annotated[str, typer.Option(help="Name the revision NAME-SUFFIX.")] = "",
    command: Annotated[list[str] | None, typer.Option(help="Instead of the image's entrypoint; repeat for words.")] = None,
    args: Annotated[list[str] | None, typer.Option(help="Arguments of the command; repeat, or a,b,c.")] = None,
    annotation: Annotated[list[str] | None, typer.Option("--annotation", "-a", help="KEY=VALUE on the revision.")] = None,
    label: Annotated[list[str] | None, typer.Option("--label", "-l", help="KEY=VALUE on the revision.")] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return as soon as it is written.")] = False,
    wait_timeout: Annotated[float, typer.Option(help="Seconds to wait until it is ready.")] = 600,
    output: Output = Form.TABLE,
    project: Project = "default",
    api: Address = "",
) -> None:
    """Deploy an image as a service, or change a service."""
    from cli import commands
    from cli.manifest import Wanted

    if image and archive:
        raise BadUsage("--image and --archive exclude each other")
    words = (args or [""])[0].split(",") if args and len(args) == 1 else args or ()
    wanted = Wanted(
        image=image, env=env or (), port=port, tcp=tcp, concurrency=concurrency, min_scale=min_scale, max_scale=max_scale,
        timeout_s=timeout, cpu=cpu, memory=memory, command=command or (), args=words, annotations=annotation or (),
        labels=label or (), revision_suffix=revision_suffix, no_traffic=no_traffic, secrets=set_secrets or (),
        pull_secrets=pull_secret or (), environment=execution_environment,
        ingress=ingress, unauthenticated=unauthenticated, invokers=invoker or (),
        egress=egress, requests_per_s=requests_per_second,
    )  # fmt: skip
    commands.deploy(
        commands.connect(api, project), name, wanted, archive, tag=tag, wait_s=0 if no_wait else wait_timeout, form=output
    )


@app.command()
def services(
    names: Names = None,
    everywhere: Annotated[bool, typer.Option("--all-projects", "-A", help="Of all projects.")] = False,
    output: Output = Form.TABLE,
    project: Project = "default",
    api: Address = "",
) -> None:
    """Services: URL, latest revision, readiness, traffic."""
    from cli import commands

    commands.services(commands.connect(api, project), names or [], everywhere, output)


@app.command()
def revisions(
    names: Names = None,
    service: Annotated[str, typer.Option("--service", "-s", help="Only of this service.")] = "",
    output: Output = Form.TABLE,
    project: Project = "default",
    api: Address = "",
) -> None:
    """Revisions: traffic, tags, instances, readiness."""
    from cli import commands

    commands.revisions(commands.connect(api, project), names or [], service, output)


@app.command()
def traffic(
    name: Name,
    to: Annotated[list[str] | None, typer.Option("--to", help="REVISION=PERCENT or LATEST=PERCENT; repeat.")] = None,
    to_latest: Annotated[bool, typer.Option("--to-latest", help="All to the latest ready revision.")] = False,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="TAG=REVISION; repeat.")] = None,
    untag: Annotated[list[str] | None, typer.Option("--untag", help="TAG to remove; repeat.")] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return as soon as it is written.")] = False,
    output: Output = Form.TABLE,
    project: Project = "default",
    api: Address = "",
) -> None:
    """Split traffic between revisions, or show the split."""
    from cli import commands

    commands.traffic(commands.connect(api, project), name, to or [], tag or [], untag or [], to_latest, not no_wait, output)


@app.command()
def delete(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Services to delete.")],
    revision: Annotated[bool, typer.Option("--revision", help="The names are those of revisions.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return at once.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", "--quiet", help="Accepted for scripts' sake: nothing is asked.")] = False,
    project: Project = "default",
    api: Address = "",
) -> None:
    """Delete services, or revisions that get no traffic."""
    from cli import commands

    commands.delete(commands.connect(api, project), names, "revisions" if revision else "services", not no_wait)


@app.command()
def apply(
    file: Annotated[str, typer.Option("--filename", "-f", help="YAML or JSON, several documents; - is stdin.")],
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return as soon as it is written.")] = False,
    wait_timeout: Annotated[float, typer.Option(help="Seconds to wait until each is ready.")] = 600,
    project: Project = "default",
    api: Address = "",
) -> None:
    """Make the API's objects be as a file says."""
    from cli import commands

    commands.apply(commands.connect(api, project), file, 0 if no_wait else wait_timeout)


# -- looking --------------------------------------------------------------------------------------------------------------------


@app.command()
def logs(
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    tail: Annotated[int, typer.Option(help="The last so many lines.")] = 100,
    revision: Annotated[str, typer.Option(help="Only of this revision.")] = "",
    instance: Annotated[str, typer.Option(help="Only of this instance.")] = "",
    since: Annotated[float, typer.Option(help="Only of the last so many seconds.")] = 0,
    output: Output = Form.TABLE,
    project: Project = "default",
    api: Address = "",
) -> None:
    """What a service's instances wrote."""
    from cli import commands, streams

    connected = commands.connect(api, project)
    streams.logs(connected, name, follow=follow, tail=tail, revision=revision, instance=instance, since_s=since, form=output)


@app.command()
def story(
    about: Annotated[str, typer.Argument(metavar="ID", help="x-request-id, cause id, instance or revision.")],
    output: Output = Form.TABLE,
    project: Project = "default",
    api: Address = "",
) -> None:
    """The life of a request, wake or instance, step by step in ms."""
    from cli import commands

    commands.story(commands.connect(api, project), about, output)


@app.command()
def why(
    name: Name,
    last: Annotated[int, typer.Option("--last", min=1, max=32, help="Decisions shown of each revision.")] = 3,
    output: Output = Form.TABLE,
    project: Project = "default",
    api: Address = "",
) -> None:
    """Why it has the instances it has: the last decisions, step by step."""
    from cli import commands
    from cli import why as reasons

    reasons.why(commands.connect(api, project), name, output, last)


@app.command()
def top(
    once: Annotated[bool, typer.Option("--once", help="One snapshot.")] = False,
    everywhere: Annotated[bool, typer.Option("--all-projects", "-A", help="Of all projects.")] = False,
    output: Output = Form.TABLE,
    project: Project = "default",
    api: Address = "",
) -> None:
    """What goes on now, live: requests/s, queue, instances."""
    from cli import commands, streams

    streams.top(commands.connect(api, project), once=once, everywhere=everywhere, form=output)


@app.command()
def instances(
    service: Annotated[str, typer.Option("--service", "-s", help="Only of this service.")] = "",
    revision: Annotated[str, typer.Option(help="Only of this revision.")] = "",
    output: Output = Form.TABLE,
    project: Project = "default",
    api: Address = "",
) -> None:
    """Instances: phase, node, address, start times (ms)."""
    from cli import commands

    commands.instances(commands.connect(api, project), service, revision, output)


@app.command()
def nodes(output: Output = Form.TABLE, project: Project = "default", api: Address = "") -> None:
    """The machines that run instances."""
    from cli import commands

    commands.nodes(commands.connect(api, project), output)


# -- images, and the rest -------------------------------------------------------------------------------------------------------


@image_app.command("import")
def image_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="OCI or `docker save` archive (.tar).")],
    name: Annotated[str, typer.Option(help="Name to give it, such as hello:v1 (default: the name in the archive).")] = "",
    shared: Shared = False,
    output: Output = Form.TABLE,
    project: Project = "default",
    api: Address = "",
) -> None:
    """Put an image from a file on every node, for the project."""
    from cli import commands, images

    images.import_(commands.connect(api, project), file, name, None if shared else project, output)


@image_app.command("list")
def image_list(shared: Shared = False, output: Output = Form.TABLE, project: Project = "default", api: Address = "") -> None:
    """Images on the nodes that the project can use."""
    from cli import commands, images

    images.list_(commands.connect(api, project), None if shared else project, output)


@image_app.command("delete")
def image_delete(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Images to delete.")],
    shared: Shared = False,
    project: Project = "default",
    api: Address = "",
) -> None:
    """Delete images from all nodes."""
    from cli import commands, images

    images.delete(commands.connect(api, project), names, None if shared else project)


@app.command()
def kubeconfig(project: Project = "default", api: Address = "") -> None:
    """Print a kubeconfig of this API for kn and kubectl."""
    from cli import commands

    commands.kubeconfig(commands.connect(api, project))


@app.command()
def version(output: Output = Form.TABLE) -> None:
    """Print the version."""
    from cli import commands

    commands.version(output)


@app.command()
def completion(shell: Annotated[str, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")] = "bash") -> None:
    """Print a script: source <(ebb completion bash)."""
    from typer._completion_shared import get_completion_script

    if shell not in ("bash", "zsh", "fish"):
        raise BadUsage(f"ebb completion: {shell}: want bash, zsh or fish")
    sys.stdout.write(get_completion_script(prog_name="ebb", complete_var="_EBB_COMPLETE", shell=shell) + "\n")
