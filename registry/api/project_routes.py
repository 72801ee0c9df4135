"""The paths of projects: Ebb's own, and Namespaces for clients that speak Kubernetes."""

from collections.abc import Callable
from typing import Any

from litestar import Response, delete, get, patch, post, put
from litestar.handlers import BaseRouteHandler

from process.clock import Clock
from registry import tenants
from registry.api import discovery, patches, problems
from registry.api.doors import EBB, is_project
from registry.api.gate import asked
from registry.api.problems import ApiError
from registry.api.routes import Http, answer, read
from registry.authorisation import Identity
from registry.objects import Object
from registry.quotas import Counts
from registry.tenants import PROJECT
from store import keys
from store.backend import Store
from store.errors import Conflict
from store.model import decode, encode
from store.projects import Project, project_of
from store.txn import Delete, Guard, Put, Txn
from store.watch import Table

TRIES = 8
_TAGS = ["Projects"]


class Projects:
    """Reads and writes. `named` gives the projects that have objects. Methods raise ApiError."""

    def __init__(
        self, store: Store, clock: Clock, table: Table[Project], named: Callable[[], list[str]], counts: Counts
    ) -> None:
        self._store, self._clock, self._table, self._named, self._counts = store, clock, table, named, counts

    def names(self, identity: Identity) -> list[str]:
        """Those that are there for `identity`: of the platform's admins all, of others where they have a role."""
        known = {"default", *self._named(), *(project.name for _, project in self._table.items())}
        if not identity.rules:
            known = {name for name in {*known, *identity.roles} if name and identity.sees(name)}
        return sorted(known)

    def get(self, name: str) -> Object:
        return tenants.shown(project_of(self._table, name), self._counts.has(name))

    async def create(self, body: Any) -> Object:
        made = self._checked(body, self._clock.wall())
        key = keys.project(made.name)
        try:
            await self._store.commit(Txn((Guard(key, 0),), (Put(key, encode(made)),), why=f"create project {made.name}"))
        except Conflict:
            raise problems.already_exists(PROJECT, made.name) from None
        return tenants.shown(made, self._counts.has(made.name))

    async def change(self, name: str, edit: Callable[[Object], Any]) -> Object:
        """PUT and PATCH; one that had no record gets one."""
        key = keys.project(name)
        for _ in range(TRIES):
            entry = await self._store.get(key)
            old = decode(Project, entry.value) if entry is not None else Project(name=name, created_at=self._clock.wall())
            body = edit(tenants.shown(old, {}))
            if isinstance(body, dict) and body.setdefault("name", name) != name:
                raise problems.bad_request(f"name is {body['name']!r:.80} but the path says {name!r}; they must be the same")
            made = self._checked(body, old.created_at)
            guard = Guard(key, entry.store_rev if entry is not None else 0)
            try:
                await self._store.commit(Txn((guard,), (Put(key, encode(made)),), why=f"change project {name}"))
            except Conflict:
                continue
            return tenants.shown(made, self._counts.has(name))
        raise problems.changed_meanwhile(PROJECT, name)

    async def delete(self, name: str) -> Object:
        """Only when it is empty: nothing is deleted by the way."""
        prefixes = (keys.objects("services", name), keys.objects("configurations", name), keys.objects("routes", name))
        for prefix in (*prefixes, keys.objects("domainmappings", name), keys.secret(name, ""), keys.config(name, "")):
            if found := (await self._store.list(prefix)).entries:
                kind = prefix.split("/")[-3]
                raise problems.conflict(PROJECT, name, f"it is not empty: {len(found)} {kind} are in it; delete them first")
        bound = [entry.key for entry in (await self._store.list(keys.bindings(name))).entries]
        entry = await self._store.get(keys.project(name))
        if entry is None and not bound:
            raise problems.not_found(PROJECT, name)
        for at in range(0, len(bound), 100):
            part = tuple(Delete(key) for key in bound[at : at + 100])
            await self._store.commit(Txn((), part, why=f"roles in project {name}"))
        if entry is not None:
            await self._store.commit(
                Txn((Guard(entry.key, entry.store_rev),), (Delete(entry.key),), why=f"delete project {name}")
            )
        return problems.success(PROJECT, name, "")

    @staticmethod
    def _checked(body: Any, created_at: float) -> Project:
        if found := tenants.validate(body):
            name = body.get("name", "") if isinstance(body, dict) else ""
            raise problems.invalid(PROJECT, name if isinstance(name, str) else "", found)
        return tenants.project(body, created_at)


def handlers(projects: Projects) -> list[BaseRouteHandler]:
    """Litestar's handlers over `projects`."""
    one = EBB + "/projects/{name:str}"

    @get(EBB + "/projects", summary="Projects that are yours", tags=_TAGS)
    async def list_projects(request: Http) -> Response[bytes]:
        return answer({"items": [projects.get(name) for name in projects.names(asked(request).identity)]})

    @post(EBB + "/projects", summary="Create a project", tags=_TAGS)
    async def create_project(request: Http) -> Response[bytes]:
        made = await projects.create(await read(request))
        asked(request).name = made["name"]
        return answer(made, 201)

    @get(one, summary="A project: weight, quota, policy, and what it has", tags=_TAGS)
    async def read_project(name: str) -> Response[bytes]:
        return answer(projects.get(name))

    @put(one, summary="Replace a project's weight, quota and policy", tags=_TAGS)
    async def replace_project(name: str, request: Http) -> Response[bytes]:
        given = await read(request)
        return answer(await projects.change(name, lambda _: given))

    @patch(one, summary="Merge patch a project", tags=_TAGS)
    async def change_project(name: str, request: Http) -> Response[bytes]:
        given = await read(request)
        return answer(await projects.change(name, lambda old: patches.merge(old, given)))

    @delete(one, status_code=200, summary="Delete a project that is empty", tags=_TAGS)
    async def delete_project(name: str) -> Response[bytes]:
        return answer(await projects.delete(name))

    return [
        list_projects,
        create_project,
        read_project,
        replace_project,
        change_project,
        delete_project,
        *_namespaces(projects),
    ]


def _namespaces(projects: Projects) -> list[BaseRouteHandler]:
    many = "/api/v1/namespaces"

    @get(many, summary="Projects, as Namespaces", tags=_TAGS)
    async def namespaces(request: Http) -> Response[bytes]:
        return answer(discovery.namespaces(projects.names(asked(request).identity)))

    @get(many + "/{name:str}", summary="A project, as a Namespace", tags=_TAGS)
    async def namespace(name: str) -> Response[bytes]:
        return answer(discovery.namespace(name))

    @post(many, summary="Create a project", tags=_TAGS)
    async def create_namespace(request: Http) -> Response[bytes]:
        given = await read(request)
        meta = given.get("metadata") if isinstance(given, dict) else None
        name = meta.get("name") if isinstance(meta, dict) else None
        if not isinstance(name, str) or not is_project(name):
            raise ApiError(422, "Invalid", f"Namespace is invalid: metadata.name: got {name!r:.80}; allowed: a DNS label")
        await projects.create({"name": name})
        asked(request).name = name
        return answer(discovery.namespace(name), 201)

    @delete(many + "/{name:str}", status_code=200, summary="Delete a project that is empty", tags=_TAGS)
    async def delete_namespace(name: str) -> Response[bytes]:
        return answer(await projects.delete(name))

    return [namespaces, namespace, create_namespace, delete_namespace]
