"""Images made to do harm, and images nobody signed: none gets onto a node."""

import base64
import json
import tarfile
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nodeagent.images import errors, signatures
from tests import archives
from tests.archives import OCI, Image
from tests.integration.images.fake import FakeRegistry
from tests.integration.images.world import HELLO, World, world

pytestmark = pytest.mark.real

TRUSTED, MALLORY = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
PEM = TRUSTED.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world(max_bytes=2**26) as made:
        yield made


def sign(
    fake: FakeRegistry, *, key: Any = TRUSTED, name: str = "hello", digest: str = HELLO.manifest, at: str = HELLO.manifest
) -> None:
    """Put beside image `at` a statement that `digest` is `name`, signed by `key`."""
    critical = {
        "identity": {"docker-reference": f"{fake.host}/{name}"},
        "image": {"docker-manifest-digest": digest},
        "type": signatures.KIND,
    }
    statement = json.dumps({"critical": critical, "optional": None}).encode()
    signature = base64.b64encode(key.sign(statement, ec.ECDSA(hashes.SHA256()))).decode()
    made = Image()
    layers = [made.describe(signatures.STATEMENT_TYPE, statement, annotations={signatures.SIGNATURE: signature})]
    config = made.describe(OCI + "config.v1+json", b"{}")
    made.manifest = made.add(json.dumps({"schemaVersion": 2, "config": config, "layers": layers}).encode())
    fake.images[f"hello:{at.replace(':', '-')}.sig"] = made


async def test_a_signed_image_is_resolved_where_signatures_are_asked_for(here: World, fake: FakeRegistry) -> None:
    sign(fake)
    exact = f"{fake.host}/hello@{HELLO.manifest}"
    assert await here.images.resolve(f"{fake.host}/hello", project="a", signature_keys=[PEM]) == exact
    assert await here.images.resolve(exact, project="a", signature_keys=[PEM]) == exact


async def test_an_image_without_a_signature_that_counts_is_refused(here: World, fake: FakeRegistry) -> None:
    async def refused(said: str) -> None:
        with pytest.raises(errors.Unsigned, match=said):
            await here.images.resolve(f"{fake.host}/hello", project="a", signature_keys=[PEM])

    await refused("no signature")
    sign(fake, key=MALLORY)
    await refused("none of the project's keys")
    sign(fake, name="other")
    await refused("is about")
    sign(fake)
    moved = fake.images["hello:latest"] = archives.busybox("moved after it was signed\n")
    await refused("no signature")
    sign(fake, at=moved.manifest)
    await refused("is about")


async def test_an_import_stands_in_for_no_signature(here: World) -> None:
    async def data() -> AsyncIterator[bytes]:
        yield archives.oci_tar(HELLO, "127.0.0.1:1/hello:v1")

    await here.images.import_archive(data(), project="a")
    assert await here.images.resolve("127.0.0.1:1/hello:v1", project="a")
    for more in ({"signature_keys": [PEM]}, {"own_imports": False}):
        with pytest.raises(errors.RegistryUnavailable):
            await here.images.resolve("127.0.0.1:1/hello:v1", project="a", **more)


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **pax: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.pax_headers = kind, link, dict(pax)
    return info


def layered(*entries: tarfile.TarInfo, config: dict[str, Any] | None = None) -> Image:
    return archives.image([archives.layer({"ok": b"fine"}, entries)], config=config)


def with_manifest(**changed: Any) -> Image:
    made = layered()
    made.manifest = made.add(json.dumps(json.loads(made.blobs[made.manifest]) | changed).encode())
    return made


def foreign() -> Image:
    made = layered()
    body = json.loads(made.blobs[made.manifest])
    body["layers"][0] |= {
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "urls": ["http://169.254.169.254/latest"],
    }
    made.manifest = made.add(json.dumps(body).encode())
    return made


def nested() -> Image:
    made = layered()
    for _ in range(6):
        made = archives.index({"linux/amd64": made})
    return made


def hostile() -> dict[str, Image]:
    """What no honest build makes."""
    return {
        "dots": layered(entry("../../../../etc/evil")),
        "whiteout-of-what-is-above": layered(entry(".wh...")),
        "whiteout-of-the-root": layered(entry(".wh..")),
        "sparse-terabyte": layered(
            entry("hole", **{"GNU.sparse.major": "0", "GNU.sparse.size": str(2**40), "GNU.sparse.map": "0,0"})
        ),
        "bomb": archives.image([archives.layer({"zeros": bytes(150_000_000)})]),
        "long-path": layered(entry("/".join(["d" * 250] * 20))),
        "foreign-layer": foreign(),
        "nested-indexes": nested(),
        "schema-1": with_manifest(schemaVersion=1, mediaType="application/vnd.docker.distribution.manifest.v1+json"),
        "too-many-layers": archives.image([archives.layer({f"f{n}": b""}) for n in range(128)]),
        "100,000-variables": layered(config={"Entrypoint": ["/ok"], "Env": [f"V{n}=x" for n in range(100_000)]}),
    }


async def test_an_image_that_no_honest_build_makes_is_refused_and_leaves_nothing(here: World, fake: FakeRegistry) -> None:
    for case, image in hostile().items():
        fake.images["evil:latest"] = image
        try:
            await here.images.ensure(f"{fake.host}/evil", project="a")
        except (errors.BadImage, errors.TooLarge):
            pass
        else:
            pytest.fail(f"{case} was let in")
    await here.collect_garbage()
    assert await here.leases() == []
    assert await here.contents() == set()
    assert await here.snapshots() == set()


HARMLESS = {
    "twice": layered(entry("same"), entry("same", tarfile.SYMTYPE, "/etc/passwd")),
    "hardlink-out": layered(entry("shadow", tarfile.LNKTYPE, "../../../../../../etc/shadow")),
    "fifo": layered(entry("fifo", tarfile.FIFOTYPE)),
}


async def test_what_is_odd_stays_inside(here: World, fake: FakeRegistry) -> None:
    for case, image in HARMLESS.items():
        fake.images["odd:latest"] = image
        try:
            ready = await here.images.ensure(f"{fake.host}/odd", project="a")
        except errors.ImageProblem:
            continue
        assert await here.file(ready.chain_id, "ok") == b"fine", case
        with pytest.raises(FileNotFoundError):
            await here.file(ready.chain_id, "shadow")
