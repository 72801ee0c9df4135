"""Create, read, replace, patch, delete and list: the work behind the Knative paths. Every write is one guarded transaction.

A dry run refuses what the write itself would refuse.
"""

import base64
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from process import ids
from process.clock import Clock, rfc3339
from registry import defaults, domains, objects, validate, writing
from registry.api import patches, problems, selectors
from registry.api.problems import ApiError
from registry.bounds import Bounds
from registry.objects import CONFIGURATION, DOMAIN_MAPPING, REVISION, ROUTE, SERVICE, Kind, Object
from registry.problem import DNS_LABEL
from registry.quotas import Counts
from store import keys
from store.backend import Entry, Store
from store.errors import Ahead, Compacted, Conflict
from store.txn import Delete, Guard, Put, Txn

PATCH_TRIES = 8
LIST_MAX = 10_000
_CHUNK = 100
_NO_TOKEN = "the continue token is not one of ours; list again without it"

Change = Callable[[Object], Object]
"""The stored object as a client sees it → the body that shall replace it."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a list was asked for: selectors, size and where the last page ended."""

    label_selector: str = ""
    field_selector: str = ""
    limit: int = 0
    token: str = ""


class Resources:
    """Objects in the store as the API shows them. Methods raise ApiError."""

    def __init__(self, store: Store, bounds: Bounds, clock: Clock, counts: Counts) -> None:
        self._store, self._bounds, self._clock, self._counts = store, bounds, clock, counts

    # -- reading ----------------------------------------------------------------------------------------------------------

    async def get(self, kind: Kind, project: str, name: str) -> Object:
        obj, entry = await self._read(kind, project, name)
        return writing.shown(obj, entry.store_rev)

    async def page(self, kind: Kind, project: str, page: Page) -> Object:
        """A `<Kind>List`; with `limit`, as much as fits and a token that continues at the same store_rev."""
        name, namespace = selectors.name_field(page.field_selector)
        matches = selectors.labels(page.label_selector)
        at, after = _read_token(page.token)
        try:
            listing = await self._store.list(_prefix(kind, project or namespace, name), at=at)
        except Compacted:
            raise problems.gone("the continue token is too old; list again without it") from None
        except Ahead:
            raise problems.bad_request(_NO_TOKEN) from None
        store_rev = at or listing.store_rev
        items: list[Object] = []
        last = ""
        meta: dict[str, Any] = {"resourceVersion": str(store_rev)}
        most = min(page.limit, LIST_MAX) if page.limit > 0 else 0
        for entry in listing.entries:
            if after and entry.key <= after:
                continue
            obj = _decode(entry)
            if not _wanted(obj, name, namespace) or not matches(obj):
                continue
            if most and len(items) == most:
                meta["continue"] = _token(store_rev, last)
                break
            items.append(writing.shown(obj, entry.store_rev))
            last = entry.key
        return {"apiVersion": kind.api_version, "kind": f"{kind.kind}List", "metadata": meta, "items": items}

    async def _read(self, kind: Kind, project: str, name: str) -> tuple[Object, Entry]:
        entry = await self._store.get(keys.object_(kind.plural, project, name))
        if entry is None:
            raise problems.not_found(kind, name)
        return _decode(entry), entry

    # -- writing ----------------------------------------------------------------------------------------------------------

    async def create(self, kind: Kind, project: str, body: Any, *, dry_run: bool = False) -> Object:
        body = self._checked(kind, project, body)
        meta = body["metadata"]
        if meta.get("resourceVersion"):
            raise problems.bad_request("metadata.resourceVersion must not be set on an object to be created")
        generated = "name" not in meta
        for _ in range(PATCH_TRIES):
            name = f"{meta['generateName']}{ids.short_id(5)}" if generated else meta["name"]
            now = rfc3339(self._clock.wall())
            obj = writing.new(kind, body, project, name, str(uuid.uuid4()), now, self._bounds)
            await self._check_names(kind, project, obj, None)
            if dry_run:
                if await self._store.get(objects.key_of(obj)) is not None:
                    break
                self._counts.fits(objects.key_of(obj))
                return obj
            try:
                return writing.shown(obj, await self._write(kind, obj, 0))
            except Conflict:
                if not generated:
                    break
        raise problems.already_exists(kind, name)

    async def replace(self, kind: Kind, project: str, name: str, body: Any, *, dry_run: bool = False) -> Object:
        """PUT. With a resourceVersion it is written over exactly that; without, over whatever is there."""
        given = _metadata(body)
        if given.get("name", name) != name:
            raise problems.bad_request(f"metadata.name is {given['name']!r} but the path says {name!r}; they must be the same")
        return await self._change(kind, project, name, lambda _: body, dry_run=dry_run)

    async def patch(self, kind: Kind, project: str, name: str, change: Change, *, dry_run: bool = False) -> Object:
        """PATCH: `change` makes the new body from the object as it is; done again when somebody else writes meanwhile."""
        return await self._change(kind, project, name, change, dry_run=dry_run)

    async def apply(self, kind: Kind, project: str, name: str, body: Any, *, dry_run: bool = False) -> tuple[Object, bool]:
        """Server-side apply; the object and whether it was created."""
        if not isinstance(body, dict):
            raise problems.bad_request("apply needs the object as a mapping")
        try:
            return await self.patch(kind, project, name, lambda old: patches.apply(old, body), dry_run=dry_run), False
        except ApiError as error:
            if error.code != 404:
                raise
        body = {**body, "metadata": {**_metadata(body), "name": name}}
        return await self.create(kind, project, body, dry_run=dry_run), True

    async def _change(self, kind: Kind, project: str, name: str, change: Change, *, dry_run: bool) -> Object:
        _client_may_write(kind)
        for _ in range(PATCH_TRIES):
            old, entry = await self._read(kind, project, name)
            raw = change(writing.shown(old, entry.store_rev))
            why = writing.precondition(_metadata(raw), old["metadata"]["uid"], entry.store_rev)
            if why:
                raise problems.conflict(kind, name, why)
            body = self._checked(kind, project, raw, name)
            self._not_owned(kind, old)
            new = writing.replaced(kind, old, body, self._bounds)
            if new is not old:
                await self._check_names(kind, project, new, old)
            if new is old or dry_run:
                return writing.shown(new, entry.store_rev)
            try:
                return writing.shown(new, await self._write(kind, new, entry.store_rev))
            except Conflict:
                continue
        raise problems.changed_meanwhile(kind, name)

    async def _write(self, kind: Kind, obj: Object, store_rev: int) -> int:
        key = objects.key_of(obj)
        txn = Txn((Guard(key, store_rev),), (Put(key, msgspec.json.encode(obj)),), why=f"write {kind.kind} {key}")
        with self._counts.room(key, 1, int(store_rev > 0)):
            return await self._store.commit(txn)

    def _checked(self, kind: Kind, project: str, raw: Any, name: str = "") -> Object:
        """The pruned body, valid. `name`: what the path says, for a body that does not."""
        _client_may_write(kind)
        body = defaults.prune(raw)
        if name and isinstance(body, dict) and isinstance(body.get("metadata", {}), dict):
            body = {**body, "metadata": {**_metadata(body), "name": name}}
        found = validate.validate(kind, body, self._bounds)
        if kind is DOMAIN_MAPPING and not found:
            domains.elsewhere(body, project, found)
        if not (DNS_LABEL.fullmatch(project) and len(project) <= 63):
            found.bad("metadata.namespace", project, "a DNS label of at most 63 characters")
        meta = _metadata(body)
        if found:
            raise problems.invalid(kind, str(meta.get("name", "")), found)
        if meta.get("namespace", project) != project:
            raise problems.bad_request(f"metadata.namespace is {meta['namespace']!r} but the path says {project!r}")
        return body  # type: ignore[no-any-return]

    async def _check_names(self, kind: Kind, project: str, new: Object, old: Object | None) -> None:
        """A revision name that the template gives must be free, or already have this very template."""
        if kind not in (SERVICE, CONFIGURATION):
            return
        found = validate.renamed_template(kind, old, new) if old is not None else []
        given = objects.meta(new["spec"]["template"]).get("name")
        if given and not found and (old is None or old["spec"] != new["spec"]):
            entry = await self._store.get(keys.object_(REVISION.plural, project, given))
            if entry is not None:
                found = validate.taken_name(_decode(entry), new)
        if found:
            raise problems.invalid(kind, objects.name_of(new), found)
        if old is None or old["spec"]["template"] != new["spec"]["template"]:
            self._counts.check(project, "revisions")
            if unasked := self._counts.unasked(project, new["spec"]["template"]):
                raise problems.unasked(kind, objects.name_of(new), project, unasked)

    def _not_owned(self, kind: Kind, obj: Object) -> None:
        owner = objects.owner_of(obj)
        if owner is not None and kind is not REVISION:
            why = f"it belongs to {owner['kind']} {owner['name']!r} and follows it; change or delete that one"
            raise problems.forbidden(kind, objects.name_of(obj), why)

    # -- deleting ---------------------------------------------------------------------------------------------------------

    async def delete(self, kind: Kind, project: str, name: str, options: Any, *, dry_run: bool = False) -> Object:
        """The object and all that it owns (propagationPolicy Orphan: without those); the Status that says so."""
        options = options if isinstance(options, dict) else {}
        for _ in range(PATCH_TRIES):
            obj, entry = await self._read(kind, project, name)
            why = writing.precondition(options.get("preconditions"), obj["metadata"]["uid"], entry.store_rev)
            if why:
                raise problems.conflict(kind, name, why)
            self._not_owned(kind, obj)
            if kind is REVISION:
                await self._not_in_use(project, obj)
            orphan = options.get("propagationPolicy") == "Orphan"
            first, rest = await self._deletion(kind, project, name, entry, orphan)
            try:
                if not dry_run:
                    await self._store.commit(first)
                    for txn in rest:
                        await self._store.commit(txn)
                return problems.success(kind, name, obj["metadata"]["uid"])
            except Conflict:
                continue
        raise problems.changed_meanwhile(kind, name)

    async def _not_in_use(self, project: str, revision: Object) -> None:
        name, labels = objects.name_of(revision), objects.labels_of(revision)
        if labels.get(objects.LABEL_ROUTING_STATE) == "active":
            raise problems.conflict(REVISION, name, "a route sends requests to it; move its traffic and tags elsewhere first")
        configuration = labels.get(objects.LABEL_CONFIGURATION, "")
        entry = await self._store.get(keys.object_(CONFIGURATION.plural, project, configuration))
        if entry is None:
            return
        latest = _decode(entry).get("status", {}).get("latestCreatedRevisionName")
        if latest == name:
            why = f"it is the latest revision of {configuration!r}; deploy another or delete the service"
            raise problems.conflict(REVISION, name, why)

    async def _deletion(self, kind: Kind, project: str, name: str, entry: Entry, orphan: bool) -> tuple[Txn, list[Txn]]:
        """The transaction that ends the object with its children, and more for revisions that do not fit into it."""
        guard, why = (Guard(entry.key, entry.store_rev),), f"delete {kind.kind} {project}/{name}"
        if kind is DOMAIN_MAPPING:
            return Txn(guard, (Delete(entry.key),), why=why), []
        if kind is REVISION:
            return Txn(guard, (Delete(entry.key), Delete(keys.revision(project, name))), why=why), []
        if orphan:
            return Txn(guard, (Delete(entry.key), *await self._set_free(kind, project, name)), why=why), []
        gone = {entry.key: Delete(entry.key)}
        if kind is SERVICE:
            for child in (CONFIGURATION, ROUTE):
                key = keys.object_(child.plural, project, name)
                gone[key] = Delete(key)
        if kind in (SERVICE, ROUTE):
            key = keys.route(project, name)
            gone[key] = Delete(key)
        for revision in await self._revisions_of(project, name) if kind is not ROUTE else ():
            for key in (keys.object_(REVISION.plural, project, revision), keys.revision(project, revision)):
                gone[key] = Delete(key)
        writes = list(gone.values())
        chunks = [writes[at : at + _CHUNK] for at in range(0, len(writes), _CHUNK)]
        return Txn(guard, tuple(chunks[0]), why=why), [Txn((), tuple(chunk), why=why) for chunk in chunks[1:]]

    async def _set_free(self, kind: Kind, project: str, name: str) -> list[Put]:
        """Children without their owner, for propagationPolicy Orphan."""
        freed: list[Put] = []
        for child in (CONFIGURATION, ROUTE) if kind is SERVICE else ():
            entry = await self._store.get(keys.object_(child.plural, project, name))
            if entry is not None:
                obj = _decode(entry)
                meta = {field: value for field, value in obj["metadata"].items() if field != "ownerReferences"}
                freed.append(Put(entry.key, msgspec.json.encode({**obj, "metadata": meta})))
        return freed

    async def _revisions_of(self, project: str, configuration: str) -> list[str]:
        """Names of all its revisions: they begin with its name, or with the start of a very long one."""
        listing = await self._store.list(keys.object_(REVISION.plural, project, configuration[:40]))
        found = (_decode(entry) for entry in listing.entries)
        return [objects.name_of(o) for o in found if objects.labels_of(o).get(objects.LABEL_CONFIGURATION) == configuration]


def _client_may_write(kind: Kind) -> None:
    if not kind.client_writes:
        raise problems.not_allowed(
            f"{kind.plural} are made by the server from a service's template; they can only be read and deleted"
        )


def _metadata(body: Any) -> dict[str, Any]:
    value = body.get("metadata") if isinstance(body, dict) else None
    return value if isinstance(value, dict) else {}


def _decode(entry: Entry) -> Object:
    return msgspec.json.decode(entry.value)  # type: ignore[no-any-return]


def _prefix(kind: Kind, project: str, name: str) -> str:
    return keys.object_(kind.plural, project, name) if project and name else keys.objects(kind.plural, project)


def _wanted(obj: Object, name: str, namespace: str) -> bool:
    meta = objects.meta(obj)
    return (not name or meta["name"] == name) and (not namespace or meta["namespace"] == namespace)


def _token(store_rev: int, key: str) -> str:
    return base64.urlsafe_b64encode(f"{store_rev} {key}".encode()).decode()


def _read_token(token: str) -> tuple[int, str]:
    if not token:
        return 0, ""
    try:
        store_rev, _, key = base64.b64decode(token, altchars=b"-_", validate=True).decode().partition(" ")
        if not (store_rev.isascii() and store_rev.isdigit() and 0 < int(store_rev) < 2**63):
            raise ValueError
        return int(store_rev), key
    except ValueError:
        raise problems.bad_request(_NO_TOKEN) from None
