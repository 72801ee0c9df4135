"""The configuration of Ebb's private containerd."""

import json
from pathlib import Path


def write(root: Path, run: Path) -> Path:
    """Write `root/config.toml` for a containerd with state in `root` and sockets in `run`; returns its path."""
    root.mkdir(parents=True, exist_ok=True)
    run.mkdir(parents=True, exist_ok=True)
    quoted = {name: json.dumps(str(path)) for name, path in (("root", root / "data"), ("state", run / "state"))}
    config = root / "config.toml"
    config.write_text(
        f"""version = 2
root = {quoted["root"]}
state = {quoted["state"]}
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = {json.dumps(str(run / "containerd.sock"))}
[debug]
  level = "warn"
"""
    )
    return config
