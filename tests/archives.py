"""Tiny real images for tests, written byte by byte: a layer is a tar, an image is JSON beside it.

Python's own tar and gzip are enough to make an OCI layout; skopeo turns it into the other forms.
"""

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BUSYBOX = Path("/bin/busybox")
SERVE = ("/bin/busybox", "sh", "-c", "exec busybox httpd -f -p ${PORT:-8080} -h /www")
OCI = "application/vnd.oci.image."


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer(files: dict[str, bytes | str | None], extra: Iterable[tarfile.TarInfo] = ()) -> bytes:
    """A layer's tar: path → content (executable when under bin/), a symlink's target as str, None for a directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            if content is None:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        for info in extra:
            tar.addfile(info)
    return out.getvalue()


@dataclass
class Image:
    """An image in memory: `blobs` by digest, `manifest` the digest to ask for."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifest: str = ""
    media_type: str = OCI + "manifest.v1+json"
    layers: list[str] = field(default_factory=list)

    def add(self, data: bytes) -> str:
        name = digest(data)
        self.blobs[name] = data
        return name

    def describe(self, media_type: str, data: bytes, **more: Any) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": self.add(data), "size": len(data), **more}


def image(
    layers: list[bytes],
    *,
    architecture: str = "amd64",
    config: dict[str, Any] | None = None,
    squeeze: bool = True,
    diff_ids: list[str] | None = None,
) -> Image:
    """An OCI image of `layers` (plain tars, gzipped when `squeeze`), running `config` (OCI's `config` object)."""
    made = Image()
    described = []
    for tar in layers:
        data = gzip.compress(tar, 1, mtime=0) if squeeze else tar
        described.append(made.describe(OCI + "layer.v1.tar" + ("+gzip" if squeeze else ""), data))
    made.layers = [entry["digest"] for entry in described]
    document = {
        "architecture": architecture,
        "os": "linux",
        "config": config or {"Entrypoint": list(SERVE), "Env": ["PATH=/bin", "GREETING=hello"], "WorkingDir": "/www"},
        "rootfs": {"type": "layers", "diff_ids": diff_ids or [digest(tar) for tar in layers]},
    }
    settings = made.describe(OCI + "config.v1+json", json.dumps(document).encode())
    body = {"schemaVersion": 2, "mediaType": made.media_type, "config": settings, "layers": described}
    made.manifest = made.add(json.dumps(body).encode())
    return made


def index(entries: dict[str, Image]) -> Image:
    """A multi-platform index: `os/architecture[/variant]` → image."""
    made = Image(media_type=OCI + "index.v1+json")
    manifests = []
    for name, each in entries.items():
        made.blobs.update(each.blobs)
        os_, architecture, *variant = name.split("/")
        platform = {"os": os_, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
        manifests.append(
            {
                "mediaType": each.media_type,
                "digest": each.manifest,
                "size": len(each.blobs[each.manifest]),
                "platform": platform,
            }
        )
    body = {"schemaVersion": 2, "mediaType": made.media_type, "manifests": manifests}
    made.manifest = made.add(json.dumps(body).encode())
    return made


def busybox(text: str = "hello\n") -> Image:
    """A static web server on $PORT, from the machine's static busybox: a shared base layer and a small one."""
    base = layer({"bin": None, "bin/busybox": BUSYBOX.read_bytes(), "bin/sh": "busybox", "tmp": None})
    return image([base, layer({"www": None, "www/index.html": text.encode()})])


def oci_tar(made: Image, name: str = "") -> bytes:
    """`made` as an OCI layout in a tar."""
    top = {"mediaType": made.media_type, "digest": made.manifest, "size": len(made.blobs[made.manifest])}
    if name:
        top["annotations"] = {"org.opencontainers.image.ref.name": name}
    files: dict[str, bytes | str | None] = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [top]}).encode(),
    }
    files |= {f"blobs/{blob.replace(':', '/')}": data for blob, data in made.blobs.items()}
    return layer(files)


def skopeo(*words: str | Path) -> None:
    """Run skopeo quietly. Raises with its output when it fails."""
    done = subprocess.run(["skopeo", *map(str, words)], check=False, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()


def copy(source: str, target: str, *flags: str) -> None:
    """`skopeo copy`, plain HTTP allowed: `oci-archive:FILE` → `docker://127.0.0.1:5000/x:y`, `docker-archive:FILE:NAME`, …"""
    skopeo("--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", "--src-tls-verify=false", *flags, source, target)
