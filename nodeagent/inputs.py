"""What instances get from Secrets and ConfigMaps: values of variables, and logins for image registries.

Secrets come sealed out of the store and are opened here, on the node that runs the instance, when its container is made. What was
used is remembered, with the store_rev it had: when it changes, an instance that is parked with the old value is told `stale`.
"""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from nodeagent.images.challenge import Credential
from nodeagent.images.errors import RegistryUnavailable
from process import logs
from store import keys
from store.backend import Store
from store.errors import StoreError
from store.model import EnvFrom, EnvRef, Failure, Private, Revision, Values, decode
from store.seal import Keyring, SealError
from store.volumes import Volume
from store.watch import Table

DOCKER = "kubernetes.io/dockerconfigjson"
LABEL_MAX = 3000
_CHANGED = "changed"
_DOCKER_HUB = ("index.docker.io", "registry-1.docker.io", "registry.hub.docker.com")

_log = logs.get("nodeagent")

Used = Mapping[str, int]
"""Keys in the store → the store_rev they were read at; 0: was not there."""


class InputMissing(Exception):
    """A variable's value cannot be had; `failure` says which, and the cure, and no value."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(reason=reason, message=message)


class Inputs:
    """`ring`: what opens Secrets, or None. `stale(instance)` is called when what an instance used has changed."""

    def __init__(self, store: Store, ring: Keyring | None) -> None:
        self._store, self._ring = store, ring
        self.stale: Callable[[str], None] = lambda _: None
        self.changed: Callable[[str], None] = lambda _: None
        """Called with the key of every Secret and ConfigMap that is another now."""
        self.tables = [Table(store, prefix, Values, self._on_change) for prefix in (keys.SECRETS, keys.CONFIGS)]
        self._used: dict[str, Used] = {}
        self._users: dict[str, set[str]] = {}

    # -- values ----------------------------------------------------------------------------------------------------------------

    async def resolve(self, revision: Revision) -> tuple[Revision, Used]:
        """`revision` with the values in its `env`, and what they were read from. Raises InputMissing, StoreError."""
        if not revision.env_refs and not revision.env_from:
            return revision, {}
        read: dict[str, tuple[int, Mapping[str, bytes]]] = {}
        found: list[tuple[str, str]] = []
        for source in revision.env_from:
            _, held = await self._held(revision.project, source, f"envFrom of {revision.name}", read)
            found += [(source.prefix + key, _literal(value, source.prefix + key)) for key, value in sorted(held.items())]
        plain = list(revision.env)
        for number, ref in enumerate(revision.env_refs):
            before = revision.env_refs[number - 1].after if number else 0
            found += plain[before : ref.after]
            where, held = await self._held(revision.project, ref, f"variable {ref.name}", read)
            if ref.key in held:
                found.append((ref.name, _literal(held[ref.key], ref.name)))
            elif not ref.optional:
                raise _missing(ref, f"variable {ref.name}: {where} has no key {ref.key!r}; it has {_names(held)}")
        found += plain[revision.env_refs[-1].after if revision.env_refs else 0 :]
        used = {key: store_rev for key, (store_rev, _) in read.items()}
        return msgspec.structs.replace(revision, env=found, env_refs=[], env_from=[]), used

    async def _held(
        self, project: str, ref: EnvRef | EnvFrom | Volume, what: str, read: dict[str, tuple[int, Mapping[str, bytes]]]
    ) -> tuple[str, Mapping[str, bytes]]:
        """What `ref` names, in words and as values. An optional one that is not there holds nothing."""
        kind, name = ("Secret", ref.secret) if ref.secret else ("ConfigMap", ref.config)
        where = f"{kind} {project}/{name}"
        key = keys.secret(project, name) if ref.secret else keys.config(project, name)
        if key not in read:
            entry = await self._store.get(key)
            try:
                held = {} if entry is None else self.opened(decode(Values, entry.value), f"{project}/{name}")
            except SealError as error:
                raise InputMissing("SecretSealed", f"{what}: {where}: {error}") from None
            read[key] = (entry.store_rev if entry is not None else 0, held)
        store_rev, held = read[key]
        if not store_rev and not ref.optional:
            word = f"`ebb secret create {name} KEY=VALUE -n {project}`" if ref.secret else "`kubectl create configmap`"
            raise _missing(ref, f"{what}: {where} does not exist; create it with {word}")
        return where, held

    async def files(self, project: str, volume: Volume) -> Mapping[str, bytes]:
        """The values of a volume. Raises InputMissing, StoreError."""
        where, held = await self._held(project, volume, f"volume {volume.path}", {})
        missing = [item.key for item in volume.items if item.key not in held]
        if missing and not volume.optional:
            raise _missing(volume, f"volume {volume.path}: {where} has no key {missing[0]!r}; it has {_names(held)}")
        return held

    def known(self, key: str) -> Mapping[str, bytes] | None:
        """The values at `key`, as last heard of; None: it is not there. Raises SealError."""
        values = next((values for table in self.tables if (values := table.get(key)) is not None), None)
        if values is None:
            return None
        return self.opened(values, "/".join(key.rsplit("/", 2)[1:]))

    def opened(self, values: Values, bound_to: str) -> Mapping[str, bytes]:
        """The values of a Secret or ConfigMap. Raises SealError."""
        if not values.sealed:
            return {**{key: text.encode() for key, text in values.data.items()}, **values.binary}
        if self._ring is None:
            raise SealError("this node has no key; start its agent with --secret-key-file FILE")
        return decode(Private, self._ring.open(values.sealed, bound_to=bound_to)).data

    async def credentials(self, project: str, pull_secrets: Sequence[str | Values], host: str) -> Credential | None:
        """The login for `host` in the first of `pull_secrets` that has one: names, or what is stored. Raises RegistryUnavailable."""
        for each in pull_secrets:
            name = each if isinstance(each, str) else str(each.metadata.get("name"))
            try:
                entry = await self._store.get(keys.secret(project, each)) if isinstance(each, str) else None
            except StoreError as error:
                raise RegistryUnavailable(f"pull secret {name}: {error}") from None
            values = decode(Values, entry.value) if entry is not None else None if isinstance(each, str) else each
            if values is None or values.type != DOCKER:
                _log.warning("no such pull secret", project=project, secret=name, cure=f"create it with type {DOCKER}")
                continue
            try:
                found = login(self.opened(values, f"{project}/{name}").get(".dockerconfigjson", b""), host)
            except SealError as error:
                _log.warning("pull secret cannot be opened", project=project, secret=name, error=str(error))
                continue
            if found is not None:
                return found
        return None

    # -- what changes ----------------------------------------------------------------------------------------------------------

    def use(self, instance: str, used: Used) -> str:
        """`instance` is made with these; what to remember of it in its labels, for `adopt`."""
        self.drop(instance)
        if not used:
            return ""
        self._used[instance] = used
        for key in used:
            self._users.setdefault(key, set()).add(instance)
        text = " ".join(f"{key.removeprefix(keys.ROOT)}@{store_rev}" for key, store_rev in used.items())
        return text if len(text) <= LABEL_MAX else _CHANGED

    def adopt(self, instance: str, label: str) -> None:
        """`instance` was made by an earlier life of the agent, which remembered `label`."""
        if label == _CHANGED:
            self.use(instance, {keys.SECRETS: 0})  # no such key: it counts as changed
        elif label:
            pairs = (word.rpartition("@") for word in label.split(" "))
            self.use(instance, {keys.ROOT + key: int(store_rev) for key, _, store_rev in pairs})

    def drop(self, instance: str) -> None:
        """It is gone."""
        for key in self._used.pop(instance, ()):
            users = self._users.get(key, set())
            users.discard(instance)
            if not users:
                self._users.pop(key, None)

    def check(self) -> None:
        """Look at all that was adopted; the tables are in."""
        for instance, used in list(self._used.items()):
            if any(self._now(key) != store_rev for key, store_rev in used.items()):
                self.stale(instance)

    def look(self, instance: str) -> None:
        """What `instance` used may have changed while it was made."""
        if any(self._now(key) > store_rev > 0 for key, store_rev in self._used.get(instance, {}).items()):
            self.stale(instance)

    def _now(self, key: str) -> int:
        """The store_rev that `key` has now, as far as known; 0: it is not there."""
        if key == keys.SECRETS:
            return -1
        entry = next((entry for table in self.tables if (entry := table.entry(key)) is not None), None)
        return entry.store_rev if entry is not None else 0

    def _on_change(self, key: str, new: Values | None, old: Values | None) -> None:
        if new is not None:
            self.changed(key)
        for instance in list(self._users.get(key, ())):
            if self._now(key) > self._used[instance][key] or new is None:
                self.stale(instance)


def login(config: bytes, host: str) -> Credential | None:
    """The login for `host` in a docker config, or None. What cannot be read counts as nothing."""
    try:
        auths = msgspec.json.decode(config).get("auths")
    except (msgspec.DecodeError, AttributeError):
        return None
    for name, auth in auths.items() if isinstance(auths, dict) else ():
        if _host(name) == host and isinstance(auth, dict) and (found := _credential(auth)) is not None:
            return found
    return None


def _host(name: str) -> str:
    host = name.partition("://")[2] or name
    host = host.partition("/")[0].lower()
    return "docker.io" if host in _DOCKER_HUB else host


def _credential(auth: Mapping[str, Any]) -> Credential | None:
    user, password = auth.get("username"), auth.get("password")
    if isinstance(user, str) and isinstance(password, str) and user:
        return Credential(user, password)
    try:
        user, colon, password = base64.b64decode(str(auth.get("auth", "")), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return Credential(user, password) if colon else None


def _literal(value: bytes, name: str) -> str:
    """A value as text in which nothing is expanded."""
    try:
        return value.decode().replace("$", "$$")
    except UnicodeDecodeError:
        raise InputMissing("StartFailed", f"variable {name}: its value is not UTF-8 text, which a variable must be") from None


def _missing(ref: EnvRef | EnvFrom | Volume, message: str) -> InputMissing:
    return InputMissing("SecretMissing" if ref.secret else "ConfigMapMissing", message)


def _names(held: Mapping[str, bytes]) -> str:
    return ", ".join(sorted(held)[:20]) or "none"
