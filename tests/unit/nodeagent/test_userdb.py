"""Users inside images: numbers, names, groups; and that no image leads out of its own files."""

import os
from pathlib import Path

import pytest

from nodeagent.userdb import BadUser, ResolvedUser, RootfsView, layers_of, resolve

PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\nbad:x:4294967296:0::/:\n# note\nshort\n"
GROUP = "root:x:0:\nwheel:x:10:root,app\nvideo:x:44:app\napps:x:1001:app\n"


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", ResolvedUser(0, 0, (10,), "/root")),
        ("0", ResolvedUser(0, 0, (10,), "/root")),
        ("app", ResolvedUser(1000, 1001, (10, 44), "/home/app")),
        ("1000", ResolvedUser(1000, 1001, (10, 44), "/home/app")),
        ("app:video", ResolvedUser(1000, 44, (), "/home/app")),
        ("app:7", ResolvedUser(1000, 7, (), "/home/app")),
        ("65532:65532", ResolvedUser(65532, 65532)),
        ("65532", ResolvedUser(65532, 0)),
    ],
)
def test_a_user_is_found_by_name_and_by_number(text: str, want: ResolvedUser) -> None:
    assert resolve(text, PASSWD, GROUP) == want


@pytest.mark.parametrize("text", ["nobody", "app:nogroup", "bad", "4294967296", "2147483648", "0:2147483648", "-1", "١"])
def test_a_user_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(BadUser, match=r"use a number|not a number"):
        resolve(text, PASSWD, GROUP)


def layer(root: Path, name: str, **files: str) -> str:
    directory = root / name
    directory.mkdir()
    for path, content in files.items():
        target = directory / path.replace("__", "/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    return str(directory)


def test_the_topmost_layer_that_has_the_file_wins(tmp_path: Path) -> None:
    top, middle, base = (
        layer(tmp_path, "a", etc__x="x"),
        layer(tmp_path, "b", etc__passwd="new"),
        layer(tmp_path, "c", etc__passwd="old"),
    )
    assert RootfsView([top, middle, base]).read("etc/passwd") == "new"
    assert RootfsView([top, base]).read("etc/passwd") == "old"
    assert RootfsView([top]).read("etc/passwd") == ""


def test_what_a_layer_removed_is_not_there(tmp_path: Path) -> None:
    base = layer(tmp_path, "base", etc__passwd="old")
    whiteout = layer(tmp_path, "whiteout", etc__group="g")
    os.mknod(f"{whiteout}/etc/passwd", 0o20000, os.makedev(0, 0))
    assert RootfsView([whiteout, base]).read("etc/passwd") == ""
    gone = layer(tmp_path, "gone")
    os.mknod(f"{gone}/etc", 0o20000, os.makedev(0, 0))
    assert RootfsView([gone, base]).read("etc/passwd") == ""


def test_an_opaque_directory_hides_what_is_below(tmp_path: Path) -> None:
    base, top = layer(tmp_path, "base", etc__passwd="old"), layer(tmp_path, "top", etc__group="g")
    os.setxattr(f"{top}/etc", "trusted.overlay.opaque", b"y")
    assert RootfsView([top, base]).read("etc/passwd") == ""


def test_links_stay_inside_the_image(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("host")
    image = layer(tmp_path, "image", usr__etc__passwd="inside")
    for name, target in {"etc": "usr/etc", "up": "../../../../../../usr/etc/passwd", "abs": "/usr/etc/passwd"}.items():
        os.symlink(target, f"{image}/{name}")
    os.symlink(str(tmp_path / "secret"), f"{image}/out")
    os.symlink("loop", f"{image}/loop")
    view = RootfsView([image])
    assert [view.read(path) for path in ("etc/passwd", "up", "abs")] == ["inside"] * 3
    assert view.read("out") == ""
    with pytest.raises(BadUser, match="more than 40 links"):
        view.read("loop")


def test_a_pipe_or_a_huge_file_in_the_place_of_passwd_does_no_harm(tmp_path: Path) -> None:
    image = layer(tmp_path, "image", big="x" * ((1 << 20) + 1))
    os.mkfifo(f"{image}/pipe")
    assert RootfsView([image]).read("pipe") == ""
    with pytest.raises(BadUser, match="larger than"):
        RootfsView([image]).read("big")


def test_layers_are_listed_topmost_first() -> None:
    options = ["workdir=/w", "upperdir=/u", "lowerdir=/l2:/l1"]
    assert layers_of("overlay", "overlay", options) == ["/u", "/l2", "/l1"]
    assert layers_of("bind", "/only", ["rbind", "rw"]) == ["/only"]
