"""Workers of several machines: only who has a certificate that says `ingress` is one."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ingress.coworkers import Coworkers
from process.identity import INGRESS, Identity, Who
from tests import real


@pytest.fixture
def cluster(tmp_path: Path) -> real.Cluster:
    return real.Cluster(tmp_path / "cluster")


@pytest.fixture
async def door(cluster: real.Cluster) -> AsyncIterator[tuple[Coworkers, int]]:
    """A worker's port, which says `welcome` to whom it admits."""
    made = Coworkers(cluster.identity("ingress", "here"))

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"welcome" if made.admits(writer.transport) else b"no")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=made.server())
    async with server:
        yield made, server.sockets[0].getsockname()[1]


async def greeting(port: int, how: ssl.SSLContext) -> bytes:
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=how, server_hostname=INGRESS)
        try:
            return await reader.read()
        finally:
            writer.close()


async def test_an_ingress_of_the_cluster_is_a_worker(door: tuple[Coworkers, int], cluster: real.Cluster) -> None:
    assert await greeting(door[1], Coworkers(cluster.identity("ingress", "there")).client()) == b"welcome"


@pytest.mark.parametrize("role", ["nodeagent", "registry", "cli"])
async def test_no_other_role_is_a_worker(role: str, door: tuple[Coworkers, int], cluster: real.Cluster) -> None:
    assert await greeting(door[1], cluster.identity(role).client()) == b"no"


async def test_without_a_certificate_of_the_cluster_there_is_no_word(
    door: tuple[Coworkers, int], cluster: real.Cluster, tmp_path: Path
) -> None:
    nobody = ssl.create_default_context(cafile=str(cluster.identities.certificate))
    other = real.Cluster(tmp_path / "other").identity("ingress").client()
    other.load_verify_locations(cluster.identities.certificate)
    for how in (nobody, other):
        try:  # in TLS 1.3 a client hears of its refusal only when it reads
            assert await greeting(door[1], how) == b""
        except (ssl.SSLError, ConnectionError):
            continue


async def test_a_worker_is_not_taken_for_another_role_by_who_dials(door: tuple[Coworkers, int], cluster: real.Cluster) -> None:
    how = cluster.identity("ingress", "there").client()
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection("127.0.0.1", door[1], ssl=how, server_hostname="store.ebb")


async def test_a_renewed_certificate_is_served_by_the_port_that_is_open(
    door: tuple[Coworkers, int], cluster: real.Cluster
) -> None:
    async def served() -> int:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", door[1], ssl=cluster.identity("ingress", "there").client(), server_hostname=INGRESS
        )
        told = int(writer.get_extra_info("peercert")["serialNumber"], 16)
        writer.close()
        return told

    before = await served()
    where = cluster.directory / "ingress-here"
    cluster.identities.issue(Who("ingress", "here"), where, time.time())
    assert await served() == before
    door[0].renew()
    assert await served() == Identity(where).certificate().serial_number != before
