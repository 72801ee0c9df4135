"""Real images of four kinds, and one that misbehaves on request, from Debian packages alone: built once, kept outside the tree.

All but `static` share one Debian base layer. What the builder and the app say is hashed into an archive's name, so that a change
builds anew, and no more than that.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path("/var/cache/ebb-tests")
APPS = HERE / "apps"

_INSTALL = "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "


def archives() -> dict[str, Path]:
    """Name → OCI archive, of: static, nginx, flask, node, testapp. Builds what is missing (a minute and a half, if that is all)."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / ".lock", "w") as lock:
        # One builder at a time: who waited finds them built.
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = {name: CACHE / f"{name}-{_digest(*sorted((APPS / name).rglob('*.*')))}.tar" for name in _MAKERS}
        missing = [name for name, archive in made.items() if not archive.exists()]
        if missing:
            with tempfile.TemporaryDirectory(dir=CACHE, prefix="work-") as work:
                layout = _bases(Path(work))
                for name in missing:
                    _MAKERS[name](layout, Path(work))
                    part = made[name].with_suffix(".part")
                    _run("skopeo", "copy", "--quiet", f"oci:{layout}:{name}", f"oci-archive:{part}:{name}")
                    part.rename(made[name])
    return made


def _digest(*files: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in (Path(__file__), *files))).hexdigest()[:12]


def _bases(work: Path) -> Path:
    """A copy of the layout that the images begin with (`base`, `nginx`, `python`, `nodejs`), which is kept for the next change."""
    kept, layout = CACHE / f"layout-{_digest()}", work / "layout"
    if not kept.exists():
        _run("umoci", "init", "--layout", layout)
        _run("umoci", "new", "--image", f"{layout}:base")
        _say("bootstrapping a Debian base")
        rootfs = work / "base.tar"
        _run("mmdebstrap", "--quiet", "--variant=apt", "--mode=root", "bookworm", rootfs)
        _layer(layout, "base", "base", work, lambda root: _run("tar", "-xf", rootfs, "-C", root))
        _layer(layout, "base", "nginx", work, lambda root: _apt(root, "nginx-light"))
        _layer(layout, "base", "python", work, lambda root: _apt(root, "python3-flask gunicorn"))
        _layer(layout, "base", "nodejs", work, lambda root: _apt(root, "nodejs node-ws"))
        layout.rename(kept)
    _run("cp", "-a", kept, layout)
    return layout


def _static(layout: Path, work: Path) -> None:
    _run("umoci", "new", "--image", f"{layout}:static")
    _layer(layout, "static", "static", work, _put_static)
    _config(layout, "static", "--config.entrypoint=/bin/busybox", "--config.cmd=sh", "--config.cmd=-c",
            "--config.cmd=exec /bin/busybox httpd -f -p $PORT -h /www")  # fmt: skip


def _nginx(layout: Path, work: Path) -> None:
    _config(layout, "nginx", "--config.entrypoint=nginx", "--config.cmd=-g", "--config.cmd=daemon off;",
            "--config.exposedports=80/tcp")  # fmt: skip


def _flask(layout: Path, work: Path) -> None:
    _layer(layout, "python", "flask", work, lambda root: _copy(APPS / "flask" / "app.py", root))
    _config(layout, "flask", "--config.cmd=sh", "--config.cmd=-c", "--config.cmd=exec gunicorn --threads 8 --bind :$PORT app:app",
            "--config.workingdir=/app", "--config.user=www-data", "--config.env=PYTHONUNBUFFERED=1")  # fmt: skip


def _testapp(layout: Path, work: Path) -> None:
    _layer(layout, "python", "testapp", work, lambda root: _copy(APPS / "testapp" / "app.py", root))
    _config(layout, "testapp", "--config.entrypoint=/usr/bin/python3", "--config.cmd=/app/app.py", "--config.workingdir=/app")


def _node(layout: Path, work: Path) -> None:
    _layer(layout, "nodejs", "node", work, lambda root: _copy(APPS / "node" / "app.js", root))
    _config(layout, "node", "--config.entrypoint=/usr/bin/node", "--config.cmd=/app/app.js",
            "--config.env=NODE_PATH=/usr/share/nodejs")  # fmt: skip


_MAKERS: dict[str, Callable[[Path, Path], None]] = {
    "static": _static,
    "nginx": _nginx,
    "flask": _flask,
    "node": _node,
    "testapp": _testapp,
}


def _layer(layout: Path, parent: str, name: str, work: Path, fill: object) -> None:
    """Image `name` = image `parent` and one layer with what `fill(rootfs)` changed."""
    _say(f"building the image {name}")
    bundle = work / f"bundle-{name}"
    _run("umoci", "unpack", "--image", f"{layout}:{parent}", bundle)
    fill(bundle / "rootfs")  # type: ignore[operator]
    _run("umoci", "repack", "--image", f"{layout}:{name}", bundle)
    shutil.rmtree(bundle)


def _config(layout: Path, name: str, *flags: str) -> None:
    _run("umoci", "config", "--image", f"{layout}:{name}", *flags)


def _put_static(root: Path) -> None:
    for folder in ("bin", "www", "tmp", "etc"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    shutil.copy2(shutil.which("busybox") or "/bin/busybox", root / "bin" / "busybox")
    (root / "www" / "index.html").write_text("a static page\n")


def _apt(root: Path, packages: str) -> None:
    shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
    _run("chroot", root, "sh", "-c", f"{_INSTALL}{packages} && apt-get clean && rm -rf /var/lib/apt/lists/*")


def _copy(file: Path, root: Path) -> None:
    (root / "app").mkdir(exist_ok=True)
    shutil.copy(file, root / "app" / file.name)


def _say(what: str) -> None:
    sys.stderr.write(f"test images: {what}\n")


def _run(*argv: object) -> None:
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, argv))}: exit {done.returncode}\n{done.stdout[-800:]}\n{done.stderr[-800:]}")


if __name__ == "__main__":
    for name, path in archives().items():
        sys.stdout.write(f"{name:10} {path.stat().st_size / 2**20:8.1f} MiB  {path}\n")
