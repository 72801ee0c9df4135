"""Create, read, replace, patch, delete and list Secrets and ConfigMaps; every write is one guarded transaction."""

import uuid
from collections.abc import Callable, Sequence
from typing import Any

from process import ids
from process.clock import Clock, rfc3339
from registry import defaults, objects, values, versions, writing
from registry.api import problems, selectors
from registry.objects import SECRET, Kind, Object
from registry.problem import DNS_LABEL
from registry.quotas import Counts
from store import keys
from store.backend import Entry, Store
from store.errors import Conflict
from store.model import Values, decode, encode
from store.seal import Keyring, SealError, key_of
from store.txn import Delete, Guard, Put, Txn

TRIES = 8
_KEPT = ("name", "namespace", "uid", "creationTimestamp")

Change = Callable[[Object], Object]


class ValueStore:
    """Secrets and ConfigMaps in the store. `ring` None: there is no key file, so no Secret can be kept. Raises ApiError."""

    def __init__(self, store: Store, clock: Clock, ring: Keyring | None, counts: Counts) -> None:
        self._store, self._clock, self._ring, self._counts = store, clock, ring, counts

    async def get(self, kind: Kind, project: str, name: str) -> Object:
        """With its values."""
        found, entry = await self._read(kind, project, name)
        return writing.shown(self._whole(kind, found), entry.store_rev)

    async def listed(self, kind: Kind, project: str, name: str) -> Object:
        """As lists show it."""
        found, entry = await self._read(kind, project, name)
        return writing.shown(values.listed(kind, found), entry.store_rev)

    async def stored_secrets(self, project: str, names: Sequence[str]) -> Sequence[Values]:
        """Secrets as they are stored, sealed; those that are not there are left out. Raises StoreError."""
        entries = [await self._store.get(keys.secret(project, name)) for name in names]
        return [decode(Values, entry.value) for entry in entries if entry is not None]

    async def list(self, kind: Kind, project: str, label_selector: str, field_selector: str) -> Object:
        """All of a project, or of all; without the values of Secrets."""
        name, namespace = selectors.name_field(field_selector)
        matches = selectors.labels(label_selector)
        listing = await self._store.list(prefix(kind, project or namespace))
        items = []
        for entry in listing.entries:
            obj = values.listed(kind, decode(Values, entry.value))
            if (not name or objects.name_of(obj) == name) and matches(obj):
                items.append(writing.shown(obj, entry.store_rev))
        meta = {"resourceVersion": str(listing.store_rev)}
        return {"apiVersion": kind.api_version, "kind": f"{kind.kind}List", "metadata": meta, "items": items}

    async def versions(self, project: str, name: str) -> Sequence[Object]:
        """The versions of a Secret; 404 when there is neither it nor one of it."""
        listing = await self._store.list(prefix(SECRET, project) + name)
        secrets = [decode(Values, entry.value) for entry in listing.entries]
        found = versions.versions(name, secrets)
        if not found and all(each.metadata["name"] != name for each in secrets):
            raise problems.not_found(SECRET, name)
        return found

    async def create(self, kind: Kind, project: str, raw: Any, *, dry_run: bool = False) -> Object:
        body = self._checked(kind, project, raw)
        given = objects.meta(body)
        if given.get("resourceVersion"):
            raise problems.bad_request("metadata.resourceVersion must not be set on an object to be created")
        name = given.get("name") or f"{given['generateName']}{ids.short_id(5)}"
        meta: Object = {"name": name, "namespace": project, "uid": str(uuid.uuid4())}
        meta["creationTimestamp"] = rfc3339(self._clock.wall())
        made = self._sealed(kind, body, meta)
        if dry_run:
            key = prefix(kind, project) + name
            if await self._store.get(key) is not None:
                raise problems.already_exists(kind, name)
            self._counts.fits(key, len(encode(made)))
            return self._whole(kind, made)
        try:
            return writing.shown(self._whole(kind, made), await self._write(kind, made, 0))
        except Conflict:
            raise problems.already_exists(kind, name) from None

    async def change(self, kind: Kind, project: str, name: str, change: Change, *, dry_run: bool = False) -> Object:
        """PUT and PATCH: `change` makes the new body from the object as it is; again when somebody else writes meanwhile."""
        for _ in range(TRIES):
            found, entry = await self._read(kind, project, name)
            old = self._whole(kind, found)
            raw = change(writing.shown(old, entry.store_rev))
            given = objects.meta(raw) if isinstance(raw, dict) else {}
            why = writing.precondition(given, old["metadata"]["uid"], entry.store_rev)
            if why:
                raise problems.conflict(kind, name, why)
            body = self._checked(kind, project, raw, name)
            if kind is SECRET:
                body = {"type": old["type"], **body}
            if wrong := values.changed(kind, old, body):
                raise problems.invalid(kind, name, wrong)
            new = self._sealed(kind, body, {field: old["metadata"][field] for field in _KEPT})
            shown = self._whole(kind, new)
            if dry_run:
                self._counts.fits(entry.key, len(encode(new)), len(entry.value))
            if dry_run or shown == old:
                return writing.shown(shown, entry.store_rev)
            try:
                return writing.shown(shown, await self._write(kind, new, entry.store_rev, len(entry.value)))
            except Conflict:
                continue
        raise problems.changed_meanwhile(kind, name)

    async def delete(self, kind: Kind, project: str, name: str, options: Any, *, dry_run: bool = False) -> Object:
        for _ in range(TRIES):
            found, entry = await self._read(kind, project, name)
            wanted = options.get("preconditions") if isinstance(options, dict) else None
            why = writing.precondition(wanted, found.metadata["uid"], entry.store_rev)
            if why:
                raise problems.conflict(kind, name, why)
            try:
                if not dry_run:
                    guard = (Guard(entry.key, entry.store_rev),)
                    await self._store.commit(Txn(guard, (Delete(entry.key),), why=f"delete {kind.kind} {project}/{name}"))
                return problems.success(kind, name, found.metadata["uid"])
            except Conflict:
                continue
        raise problems.changed_meanwhile(kind, name)

    async def rotate(self, *, new_key: bool, retire: bool = False) -> Object:
        """Seal every Secret anew with the newest key, after adding one when `new_key`. What it did.

        `retire`: then forget the keys that no Secret is sealed with."""
        ring = self._keys()
        try:
            newest = ring.add() if new_key else ring.newest
            listing = await self._store.list(keys.SECRETS)
            done = sum([await self._reseal(entry, ring) for entry in listing.entries])
            # Looked at again: somebody may have written meanwhile with what was the newest key before.
            retired = ring.retire(await self._needed()) if retire else []
        except SealError as error:
            raise problems.not_as_it_is(f"Secrets were not all sealed anew: {error}") from None
        return {"key": newest, "resealed": done, "secrets": len(listing.entries), "retired": retired}

    async def _needed(self) -> set[str]:
        """The keys that Secrets are sealed with."""
        return {key_of(decode(Values, entry.value).sealed) for entry in (await self._store.list(keys.SECRETS)).entries}

    async def _reseal(self, entry: Entry | None, ring: Keyring) -> bool:
        for _ in range(TRIES):
            if entry is None:
                return False
            found = decode(Values, entry.value)
            if key_of(found.sealed) == ring.newest:
                return False
            try:
                await self._write(SECRET, values.resealed(found, ring), entry.store_rev, values.TOTAL_MAX_BYTES)
                return True
            except Conflict:
                entry = await self._store.get(entry.key)
        raise problems.changed_meanwhile(SECRET, "")

    # -- helpers ----------------------------------------------------------------------------------------------------------

    async def _read(self, kind: Kind, project: str, name: str) -> tuple[Values, Entry]:
        entry = await self._store.get(prefix(kind, project) + name)
        if entry is None:
            raise problems.not_found(kind, name)
        return decode(Values, entry.value), entry

    async def _write(self, kind: Kind, made: Values, store_rev: int, before_bytes: int = 0) -> int:
        """`before_bytes`: what it was; more than that counts against the project's quota."""
        key, data = prefix(kind, made.metadata["namespace"]) + made.metadata["name"], encode(made)
        with self._counts.room(key, len(data), before_bytes):
            return await self._store.commit(Txn((Guard(key, store_rev),), (Put(key, data),), why=f"write {key}"))

    def _checked(self, kind: Kind, project: str, raw: Any, name: str = "") -> Object:
        body = _without_nulls(raw)
        if name and isinstance(body, dict) and isinstance(body.get("metadata", {}), dict):
            body = {**body, "metadata": {**objects.meta(body), "name": objects.meta(body).get("name") or name}}
        found = values.validate(kind, body)
        if not (DNS_LABEL.fullmatch(project) and len(project) <= 63):
            found.bad("metadata.namespace", project, "a DNS label of at most 63 characters")
        if found:
            raise problems.invalid(kind, str(objects.meta(body).get("name", "")) if isinstance(body, dict) else "", found)
        given = objects.meta(body)
        if given.get("namespace", project) != project:
            raise problems.bad_request(f"metadata.namespace is {given['namespace']!r} but the path says {project!r}")
        if name and given["name"] != name:
            raise problems.bad_request(f"metadata.name is {given['name']!r} but the path says {name!r}; they must be the same")
        return body  # type: ignore[no-any-return]

    def _keys(self) -> Keyring:
        if self._ring is None:
            said = "this registry has no key to seal Secrets with: start it and the node agents with --secret-key-file FILE"
            raise problems.not_allowed(said)
        return self._ring

    def _sealed(self, kind: Kind, body: Object, meta: Object) -> Values:
        try:
            return values.stored(kind, body, meta, self._keys() if kind is SECRET else None)
        except SealError as error:
            raise problems.unavailable(str(error)) from None

    def _whole(self, kind: Kind, found: Values) -> Object:
        try:
            return values.whole(kind, found, self._keys() if kind is SECRET else None)
        except SealError as error:
            raise problems.unavailable(f"{kind.kind} {found.metadata.get('name')}: {error}") from None


def prefix(kind: Kind, project: str = "") -> str:
    """Where objects of `kind` are: of one project, or of all."""
    root = keys.SECRETS if kind is SECRET else keys.CONFIGS
    return f"{root}{project}/" if project else root


def _without_nulls(raw: Any) -> Any:
    """Nulls gone, and empty metadata; empty values of keys stay."""
    if not isinstance(raw, dict):
        return raw
    kept = {name: value for name, value in raw.items() if value is not None and name != "status"}
    for name in ("data", "stringData", "binaryData"):
        if isinstance(kept.get(name), dict):
            kept[name] = {key: value for key, value in kept[name].items() if value is not None}
    if "metadata" in kept:
        kept["metadata"] = defaults.prune(kept["metadata"])
    return kept
