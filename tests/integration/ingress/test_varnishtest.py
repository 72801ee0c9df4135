"""Framing and desynchronisation, as scripts of varnishtest: its clients and servers say every byte, the real front door is between."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from deploy.ports import free_port
from tests.integration.ingress.door import HOST, open_door

SCRIPTS = sorted((Path(__file__).parents[2] / "varnish").glob("*.vtc"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
async def test_the_script_is_played_to_its_end(script: Path, tmp_path: Path) -> None:
    port = free_port()
    async with open_door() as door:
        await door.route()
        await door.ready("i1", port)
        defined = {"door": f"127.0.0.1:{door.port}", "instance": f"127.0.0.1:{port}", "host": HOST}
        flags = [word for name, value in defined.items() for word in ("-D", f"{name}={value}")]
        argv = ["varnishtest", "-t", "30", *flags, str(script)]
        played = await asyncio.to_thread(subprocess.run, argv, capture_output=True, env={"TMPDIR": str(tmp_path)}, timeout=60)
    assert played.returncode == 0, (played.stdout + played.stderr).decode("utf-8", "replace")[-6000:]
