"""Whether an image is signed by somebody a project trusts, in the layout of cosign: a manifest tagged `sha256-<hex>.sig` beside the
image, whose layers are statements (who signs says: this digest, under this name), each with its signature as an annotation.

A statement counts when one of the keys signed it, it names exactly this digest, and this repository: a signature that was copied to
another repository, or a tag that was moved, is none.
"""

import base64
import binascii
from collections.abc import Sequence

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from nodeagent.images.errors import BadImage, ImageNotFound, TooLarge, Unsigned
from nodeagent.images.manifest import Descriptor, digest_of
from nodeagent.images.registry import Lookup, Registry, retrying
from store import imageref
from store.imageref import ImageRef

STATEMENT_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
KIND = "cosign container image signature"
MAX_STATEMENT_BYTES = 64 * 1024
MAX_STATEMENTS = 32

Key = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


class _Signatures(msgspec.Struct, rename="camel"):
    layers: list[Descriptor]


class _Identity(msgspec.Struct, rename="kebab"):
    docker_reference: str


class _Image(msgspec.Struct, rename="kebab"):
    docker_manifest_digest: str


class _Critical(msgspec.Struct):
    identity: _Identity
    image: _Image
    type: str


class _Statement(msgspec.Struct):
    critical: _Critical


async def require(registry: Registry, ref: ImageRef, digest: str, pems: Sequence[str], lookup: Lookup) -> None:
    """Return when image `digest` of `ref`'s repository is signed by one of `pems`. Raises Unsigned, and what the registry may raise."""
    keys = [public_key(pem) for pem in pems]
    tag = digest.replace(":", "-", 1) + ".sig"
    try:
        data, _ = await registry.manifest(ref, tag, lookup)
    except ImageNotFound:
        raise Unsigned(
            f"image {ref.at(digest)}: the project takes only signed images and this one has no signature ({ref.name}:{tag}); "
            "sign it (cosign sign --key …)"
        ) from None
    problems = []
    for layer in _layers(data)[:MAX_STATEMENTS]:
        statement = await _statement(registry, ref, layer, lookup)
        problem = judge(statement, (layer.annotations or {}).get(SIGNATURE, ""), keys, ref.name, digest)
        if not problem:
            return
        problems.append(problem)
    said = "; ".join(dict.fromkeys(problems)) or "it holds no statement"
    raise Unsigned(f"image {ref.at(digest)}: no signature counts: {said}; sign it with one of the project's {len(keys)} keys")


def judge(statement: bytes, signature: str, keys: Sequence[Key], name: str, digest: str) -> str:
    """Why `statement` is no word of one of `keys` for `digest` under `name` (`host/repository`); empty: it is."""
    try:
        raw = base64.b64decode(signature, validate=True)
    except binascii.Error:
        return "a signature is not base64"
    if not raw or not any(_signed(key, raw, statement) for key in keys):
        return "a signature is by none of the project's keys"
    try:
        critical = msgspec.json.decode(statement, type=_Statement).critical
        named = imageref.parse(critical.identity.docker_reference).name
    except (msgspec.MsgspecError, UnicodeDecodeError, imageref.BadReference):
        return "a statement cannot be read"
    if critical.type != KIND:
        return f"a statement is of type {critical.type[:60]!r}"
    if critical.image.docker_manifest_digest != digest:
        return f"a statement is about {critical.image.docker_manifest_digest[:80]!r}"
    return "" if named == name else f"a statement is about {named!r}"


def public_key(pem: str) -> Key:
    """The key in `pem`. Raises Unsigned for what is none."""
    try:
        key = load_pem_public_key(pem.encode())
    except ValueError as error:
        raise Unsigned(f"a signature key of the project is no PEM public key: {error}; mend the project's policy") from None
    if isinstance(key, Key):
        return key
    raise Unsigned("a signature key of the project is neither ECDSA, Ed25519 nor RSA; mend the project's policy")


def _signed(key: Key, signature: bytes, data: bytes) -> bool:
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, data)
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        else:
            key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _layers(data: bytes) -> list[Descriptor]:
    try:
        layers = msgspec.json.decode(data, type=_Signatures).layers
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadImage(f"the manifest of signatures cannot be read: {error}") from None
    return [layer for layer in layers if layer.media_type == STATEMENT_TYPE]


async def _statement(registry: Registry, ref: ImageRef, layer: Descriptor, lookup: Lookup) -> bytes:
    async def ask() -> bytes:
        data = bytearray()
        async with registry.blob(ref, layer.digest, 0, lookup) as (_, chunks):
            async for chunk in chunks:
                data += chunk
                if len(data) > MAX_STATEMENT_BYTES:
                    raise TooLarge(f"statement {layer.digest} of a signature has more than {MAX_STATEMENT_BYTES} bytes")
        return bytes(data)

    data = await retrying(ask, f"registry {ref.host}")
    if digest_of(data) != layer.digest:
        raise Unsigned(f"statement {layer.digest} of a signature has other bytes; the registry's copy is damaged")
    return data
