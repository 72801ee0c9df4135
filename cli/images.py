"""Commands on images: import from a file, list, delete."""

import sys
from pathlib import Path

from cli import rows, show
from cli.client import EBB, Api, Object
from cli.errors import BadUsage, Refused
from cli.show import Form
from cli.steps import Steps


def import_(api: Api, file: Path, name: str, project: str | None, form: Form) -> None:
    """Upload an archive to all nodes, for `project` or (None) for all."""
    if not file.is_file():
        raise BadUsage(f"{file}: no such file; want an OCI or `docker save` archive")
    with Steps(quiet=form is not Form.TABLE) as steps:
        images = upload(api, file, name, project, steps)
    show.listing(
        form,
        images,
        ["NAME", "DIGEST"],
        lambda: [[i["name"], i["digest"]] for i in images],
        lambda: [i["name"] for i in images],
    )


def upload(api: Api, file: Path, name: str, project: str | None, steps: Steps) -> list[Object]:
    total, sent = file.stat().st_size, 0

    def progress(count: int) -> None:
        nonlocal sent
        sent += count
        steps.now(
            f"importing {file.name}: {rows.size(sent)} of {rows.size(total)}" if sent < total else "unpacking on the nodes"
        )

    try:
        answer = api.upload(_path(project), file, {"name": name} if name else {}, progress)
    except Refused as error:
        raise Refused(f"{file}: {error}", error.status, error.reason) from None
    images = list(answer.get("images", []))
    if not images:
        raise Refused(f"{file}: no image was found in it")
    steps.done(f"imported {images[0]['name'].removeprefix('docker.io/library/')} ({rows.size(total)})")
    return images


def list_(api: Api, project: str | None, form: Form) -> None:
    """List what `project` can use, or (None) all images."""
    found = api.items(_path(project))
    head = ["NAME", "PROJECT", "DIGEST", "SIZE", "UNPACKED", "IN USE"]
    show.listing(form, found, head, lambda: rows.images(found), lambda: [i["name"] for i in found])


def delete(api: Api, names: list[str], project: str | None) -> None:
    """Delete each image of `project`, or (None) of all, from all nodes."""
    for name in names:
        api.delete(_path(project), {"name": name})
        sys.stdout.write(f"deleted image {name}\n")


def _path(project: str | None) -> str:
    return f"{EBB}/images" if project is None else f"{EBB}/namespaces/{project}/images"
