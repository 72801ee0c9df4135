"""Secrets at rest: AES-256-GCM under keys that never lie in etcd.

    ring = Keyring(path)                          # the file of --secret-key-file
    text = ring.seal(b"…", bound_to="default/db")
    ring.open(text, bound_to="default/db")

A sealed text is `v1.<key id>.<base64 of nonce and ciphertext>`. `bound_to` is authenticated with it: what was sealed for one
project and name opens for no other. The file has a line a key, `<id> <base64 of 32 bytes>`; the last one seals, all open.
It is read again when it changed, so that a key that was added is known without a restart.
"""

import base64
import binascii
import os
import re
import secrets
from collections.abc import Collection
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_VERSION = "v1"


class SealError(Exception):
    """Nothing can be sealed or opened; the message says why and what to do. It never holds what was sealed."""


class Keyring:
    """The keys of one file. Blocking, and quick: the file is small and looked at with one `stat`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._keys: dict[str, AESGCM] = {}

    @property
    def newest(self) -> str:
        """The id of the key that seals. Raises SealError."""
        return next(reversed(self._loaded()))

    def seal(self, plain: bytes, *, bound_to: str) -> str:
        """`plain` under the newest key. Raises SealError."""
        name, key = next(reversed(self._loaded().items()))
        nonce = os.urandom(NONCE_BYTES)
        data = nonce + key.encrypt(nonce, plain, _bound(name, bound_to))
        return f"{_VERSION}.{name}.{base64.b64encode(data).decode()}"

    def open(self, sealed: str, *, bound_to: str) -> bytes:
        """What was sealed. Raises SealError."""
        name = key_of(sealed)
        key = self._loaded().get(name)
        if key is None:
            raise SealError(
                f"sealed with key {name!r}, which {self._path} does not hold (it has {', '.join(self._keys)}); "
                f"copy that key's line into it"
            )
        try:
            data = base64.b64decode(sealed.rpartition(".")[2], validate=True)
            return key.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], _bound(name, bound_to))
        except (InvalidTag, ValueError):
            raise SealError(f"sealed with key {name!r}, but not for {bound_to} or not whole: it was changed or moved") from None

    def add(self) -> str:
        """Make a key that seals from now on; its id. Raises SealError."""
        return add_key(self._path)

    def retire(self, needed: Collection[str]) -> list[str]:
        """Forget the keys that are not `needed`, but for the newest; their ids. Raises SealError."""
        return drop_keys(self._path, {*needed, self.newest})

    def _loaded(self) -> dict[str, AESGCM]:
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if stamp == self._stamp:
                return self._keys
            # A group may read what it cannot change: root's own file.
            if stat.st_mode & (0o077 if stat.st_uid else 0o037):
                raise SealError(f"{self._path} may be read by others (mode {stat.st_mode & 0o777:o}); chmod 600 it")
            text = self._path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise SealError(f"key file {self._path}: {error}") from None
        self._keys, self._stamp = _parse(text, self._path), stamp
        return self._keys


def key_of(sealed: str) -> str:
    """The id of the key that `sealed` is under. Raises SealError."""
    version, _, rest = sealed.partition(".")
    name, dot, _ = rest.partition(".")
    if version != _VERSION or not dot:
        raise SealError(f"not a sealed text of version {_VERSION}; a newer Ebb may have written it")
    return name


def add_key(path: Path) -> str:
    """Write a new random key behind those in `path`, which is made (0600) when it is not there; returns its id.

    The old file is whole until the new one is. Raises SealError.
    """
    try:
        text = path.read_text() if path.exists() else ""
        known = _parse(text, path) if text.strip() else {}
        name = f"k{len(known) + 1}-{secrets.token_hex(4)}"
        line = f"{name} {base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}\n"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(path, text + ("\n" if text and not text.endswith("\n") else "") + line)
    except (OSError, UnicodeDecodeError) as error:
        raise SealError(f"key file {path}: {error}") from None
    return name


def drop_keys(path: Path, kept: Collection[str]) -> list[str]:
    """Take all keys out of `path` but those that are `kept`; the ids of those that went. Raises SealError."""
    try:
        text = path.read_text()
        gone = [name for name in _parse(text, path) if name not in kept]
        lines = [line for line in text.splitlines(keepends=True) if not line.strip() or line.split()[0] not in gone]
        if gone:
            _write(path, "".join(lines))
    except (OSError, UnicodeDecodeError) as error:
        raise SealError(f"key file {path}: {error}") from None
    return gone


def _write(path: Path, text: str) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _bound(name: str, bound_to: str) -> bytes:
    return f"{_VERSION}.{name}.{bound_to}".encode()


def _parse(text: str, path: Path) -> dict[str, AESGCM]:
    found: dict[str, AESGCM] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        name, key = words[0], _key(words[1]) if len(words) == 2 else b""
        if not _ID.fullmatch(name) or len(key) != KEY_BYTES or name in found:
            raise SealError(f"{path}, line {number}: want `<id> <base64 of {KEY_BYTES} bytes>`, each id once")
        found[name] = AESGCM(key)
    if not found:
        raise SealError(f"{path} holds no key")
    return found


def _key(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""
