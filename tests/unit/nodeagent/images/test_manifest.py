"""What manifests say, and what is refused."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.images import manifest
from nodeagent.images.errors import BadImage, ImageProblem, TooLarge, WrongPlatform
from nodeagent.images.manifest import Index, Manifest, Platform, choose, parse, parse_config
from tests import archives

AMD64 = Platform("linux", "amd64")
OCI = "application/vnd.oci.image."


def document(layers: int = 1, **changed: Any) -> bytes:
    made = archives.image([f"layer {number}".encode() for number in range(layers)], squeeze=False)
    return json.dumps({**json.loads(made.blobs[made.manifest]), **changed}).encode()


def index(*platforms: str) -> Index:
    entries: list[dict[str, Any]] = []
    for number, name in enumerate(platforms):
        os, architecture, variant = (*name.split("/"), "", "")[:3]
        platform = {"platform": {"os": os, "architecture": architecture, "variant": variant}} if name else {}
        digest = f"sha256:{number:064d}"
        entries.append({"mediaType": OCI + "manifest.v1+json", "digest": digest, "size": 1, **platform})
    read = parse(json.dumps({"schemaVersion": 2, "manifests": entries}).encode(), "")
    assert isinstance(read, Index)
    return read


def chosen(here: Platform, *platforms: str) -> str:
    return platforms[int(choose(index(*platforms), here).digest[7:])]


def test_manifests_of_both_kinds_are_told_apart_by_type_or_shape() -> None:
    assert isinstance(parse(document(), ""), Manifest)
    assert isinstance(parse(document(mediaType=""), "application/vnd.docker.distribution.manifest.v2+json"), Manifest)
    assert isinstance(parse(document(mediaType=""), "application/octet-stream"), Manifest)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "cannot be read"),
        (b"[]", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b'{"schemaVersion":1}', "schema version 1"),
        (document(mediaType="application/vnd.docker.distribution.manifest.v1+json"), "manifest.v1"),
        (
            document(config={"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": "x", "size": 1}),
            "not a container",
        ),
        (document(config={"mediaType": OCI + "config.v1+json", "digest": "sha256:zz", "size": 1}), "64 lower-case"),
        (document(config={"mediaType": OCI + "config.v1+json", "digest": "sha512:" + "0" * 128, "size": 1}), "sha256"),
        (document(layers=1, layers_=1).replace(b"layer.v1.tar", b"layer.v1.tar+encrypted"), "plain or compressed"),
        (document().replace(b'"size": 7', b'"size": -7'), "size -7"),
    ],
)
def test_what_cannot_be_run_is_a_bad_image(data: bytes, says: str) -> None:
    with pytest.raises(BadImage, match=says):
        parse(data, "")


def test_too_many_layers_and_too_long_manifests_are_refused_with_the_limit() -> None:
    assert len(parse(document(layers=127), "").layers) == 127  # type: ignore[union-attr]
    with pytest.raises(TooLarge, match="128 layers; at most 127"):
        parse(document(layers=128), "")
    with pytest.raises(TooLarge, match="at most 4194304"):
        parse(b" " * (4 * 2**20 + 1), "")


@pytest.mark.parametrize(
    ("here", "platforms", "want"),
    [
        (AMD64, ("linux/arm64/v8", "linux/amd64", "windows/amd64"), "linux/amd64"),
        (AMD64, ("linux/amd64/v3", "linux/amd64"), "linux/amd64"),
        (AMD64, ("linux/amd64", "linux/amd64/v1"), "linux/amd64"),
        (Platform("linux", "arm64", "v8"), ("linux/arm/v7", "linux/arm64"), "linux/arm64"),
        (Platform("linux", "arm", "v7"), ("linux/arm/v5", "linux/arm/v7", "linux/arm/v6"), "linux/arm/v7"),
        (Platform("linux", "arm", "v6"), ("linux/arm/v5", "linux/arm/v7", "linux/arm/v6"), "linux/arm/v6"),
        (AMD64, ("",), ""),
    ],
)
def test_the_best_variant_this_machine_runs_is_chosen(here: Platform, platforms: tuple[str, ...], want: str) -> None:
    assert chosen(here, *platforms) == want


def test_no_fitting_platform_says_what_there_is() -> None:
    with pytest.raises(WrongPlatform, match=r"linux/amd64/v3, linux/arm64/v8; this node is linux/amd64"):
        choose(index("linux/arm64/v8", "linux/amd64/v3"), AMD64)
    with pytest.raises(WrongPlatform, match="nothing"):
        choose(Index([]), AMD64)


def test_a_config_is_read_with_everything_it_may_leave_out() -> None:
    body = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": ["sha256:a"]}}
    assert parse_config(json.dumps(body).encode(), AMD64, 1).config == manifest.ImageConfig()
    body["config"] = {
        "Entrypoint": None,
        "Cmd": ["a", "b"],
        "Env": ["A=1=2", "B=", "C"],
        "ExposedPorts": {"80/tcp": {}},
        "User": "www",
        "StopSignal": "SIGQUIT",
    }
    assert parse_config(json.dumps(body).encode(), AMD64, 1).config == manifest.ImageConfig(
        cmd=("a", "b"), env=(("A", "1=2"), ("B", ""), ("C", "")), exposed=("80/tcp",), user="www", stop_signal="SIGQUIT"
    )
    with pytest.raises(BadImage, match="names 1 layers and the manifest 2"):
        parse_config(json.dumps(body).encode(), AMD64, 2)
    with pytest.raises(WrongPlatform, match="for linux/s390x"):
        parse_config(json.dumps({**body, "architecture": "s390x"}).encode(), AMD64, 1)


def test_chain_ids_are_those_of_the_specification() -> None:
    a, b = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    assert manifest.chain_ids(()) == []
    assert manifest.chain_ids((a,)) == [a]
    assert manifest.chain_ids((a, b)) == [a, manifest.digest_of(f"{a} {b}".encode())]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["mediaType", "config", "layers", "manifests", "digest", "size", "schemaVersion", "platform", "x"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(_json)
def test_any_json_is_a_manifest_or_a_problem(value: Any) -> None:
    with suppress(ImageProblem):
        parse(json.dumps(value).encode(), "")
