"""`ebb trust` on the machine's own store: a client that is told nothing accepts the engine's certificates, and then no longer."""

import ssl
import time
from pathlib import Path

import pytest

from deploy import trust
from deploy.preflight import Refused
from tests.certificates import World
from tests.unit.registry.test_pair import handshake

pytestmark = pytest.mark.real


def accepted(world: World, directory: Path) -> bool:
    """By a client with nothing but the system's authorities."""
    return handshake(
        ssl.create_default_context(), world.authority.issue(("a.p.localhost",), time.time()), "a.p.localhost", directory
    )


def test_one_command_trusts_the_engines_authority_and_one_takes_it_back(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"no .*ca\.crt: `ebb up` makes it"):
        trust.trust(tmp_path)
    world = World(tmp_path)
    assert not accepted(world, tmp_path)
    try:
        assert str(trust.trusted(tmp_path)) in trust.trust(tmp_path)
        assert accepted(world, tmp_path)
        assert "is there already" in trust.trust(tmp_path)
    finally:
        said = trust.distrust(tmp_path)
    assert said == f"removed {trust.trusted(tmp_path)}"
    assert not accepted(world, tmp_path)
    assert "nothing to remove" in trust.distrust(tmp_path)
    assert not list(Path("/etc/ssl/certs").glob(f"{trust.trusted(tmp_path).stem}*"))
