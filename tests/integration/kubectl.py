"""kubectl, against a registry of the test's own, as its first admin."""

import asyncio
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import yaml

from tests.integration.registry_world import TOKEN

Kubectl = Callable[..., Awaitable[str]]
"""`await kubectl(*words, stdin="", code=0)`: what it prints. Fails where it exits with another code."""


def kubectl_of(server: str, home: Path) -> Kubectl:
    """A kubectl that talks to the API at `server`; `home` holds the authority's `ca.crt`, and is given the rest."""
    program = shutil.which("kubectl", path=str(Path(sys.executable).parent))
    assert program, "kubectl is not installed; run deploy/test"
    config, own = home / "kubeconfig", {"cluster": "ebb", "namespace": "default", "user": "ebb"}
    cluster = {"server": server, "certificate-authority": str(home / "ca.crt")}
    text = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "ebb",
        "clusters": [{"name": "ebb", "cluster": cluster}],
        "contexts": [{"name": "ebb", "context": own}],
        "users": [{"name": "ebb", "user": {"token": TOKEN}}],
    }
    config.write_text(yaml.safe_dump(text))

    async def run(*words: str, stdin: str = "", code: int = 0) -> str:
        argv = [program, "--kubeconfig", str(config), "--cache-dir", str(home / "cache"), *words]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=pipe)
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 30)
        assert process.returncode == code, (out + err).decode()
        return (out + err).decode()

    return run
