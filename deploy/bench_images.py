"""The images of the benchmarks, built from this machine's own files: a tiny static server, and a web app in Python."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

PYTHON_APP = """
import asyncio, os

async def serve(reader, writer):
    try:
        while head := await reader.readuntil(b"\\r\\n\\r\\n"):
            query = head.split(b" ", 2)[1].partition(b"?ms=")[2]
            if query:
                await asyncio.sleep(int(query) / 1000)
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\n\\r\\nok\\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()

async def main():
    server = await asyncio.start_server(serve, "0.0.0.0", int(os.environ["PORT"]), backlog=1024)
    await server.serve_forever()

asyncio.run(main())
"""
"""GET /?ms=N answers after N ms. Standard library only, one thread: what it costs is the interpreter and asyncio."""
SKIPPED = ("dist-packages", "test", "__pycache__", "idlelib", "tkinter", "ensurepip", "lib2to3", "config-*")


def static_image(out: Path) -> Path:
    """An OCI archive with busybox's web server and one page. Raises FileNotFoundError when a tool is not installed."""
    root = _root(out)
    shutil.copy2(_tool("busybox"), root / "bin" / "busybox")
    (root / "www").mkdir()
    (root / "www" / "index.html").write_text("a static page\n")
    return _archive(out, root, ["/bin/busybox", "sh", "-c", "exec /bin/busybox httpd -f -p $PORT -h /www"])


def python_image(out: Path) -> Path:
    """An OCI archive with this machine's Python and `PYTHON_APP`. Raises FileNotFoundError when a tool is not installed."""
    root = _root(out)
    python = Path(_tool("python3", "/usr/bin")).resolve()  # Debian's, and not the one of a virtual environment
    library = Path(f"/usr/lib/{python.name}")
    shutil.copytree(library, root / library.relative_to("/"), symlinks=False, ignore=shutil.ignore_patterns(*SKIPPED))
    for file in [python, *_libraries([python, *library.glob("lib-dynload/*.so")])]:
        place = root / file.relative_to("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file.resolve(), place)
    (root / "app.py").write_text(PYTHON_APP)
    return _archive(out, root, [str(python), "-S", "/app.py"])


def _libraries(binaries: Sequence[Path]) -> set[Path]:
    """The shared libraries, loader included, that `binaries` are linked with."""
    said = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, timeout=60, check=True).stdout
    words = (word for line in said.splitlines() for word in line.split())
    return {Path(word) for word in words if word.startswith("/") and not word.endswith(":")}


def _tool(name: str, path: str | None = None) -> str:
    found = shutil.which(name, path=path)
    if found is None:
        raise FileNotFoundError(f"{name} is needed to build the image; run deploy/install bench")
    return found


def _root(out: Path) -> Path:
    root = out.parent / out.stem / "root"
    for folder in ("bin", "tmp", "etc", "proc", "sys", "dev"):
        (root / folder).mkdir(parents=True)
    return root


def _archive(out: Path, root: Path, start: Sequence[str]) -> Path:
    layout, layer, umoci = f"{root.parent}/layout", root.parent / "layer.tar", _tool("umoci")
    entry = [f"--config.entrypoint={word}" for word in start]
    for argv in (
        ["tar", "-C", str(root), "--owner=0", "--group=0", "-cf", str(layer), "."],
        [umoci, "init", "--layout", layout],
        [umoci, "new", "--image", f"{layout}:bench"],
        [umoci, "raw", "add-layer", "--image", f"{layout}:bench", str(layer)],
        [umoci, "config", "--image", f"{layout}:bench", *entry],
        ["tar", "-C", layout, "-cf", str(out), "."],
    ):
        subprocess.run(argv, check=True, capture_output=True, timeout=60)
    return out
