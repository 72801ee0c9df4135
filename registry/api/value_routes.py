"""The paths of Secrets and ConfigMaps: HTTP in, `ValueStore` asked, JSON out."""

from typing import Any

import msgspec
from litestar import Response, delete, get, patch, post, put
from litestar.handlers import BaseRouteHandler
from litestar.response import Stream

from process.clock import Clock
from registry import objects, values
from registry.api import columns, patches, problems
from registry.api.gate import asked
from registry.api.problems import ApiError
from registry.api.routes import Http, answer, flag, read, watch_request
from registry.api.values import Change, ValueStore, prefix
from registry.api.watching import Watches
from registry.objects import Kind, Object
from store.model import Values

ROOT = "/api/v1"
EVERYWHERE = "/apis/ebb.dev/v1/secrets:rotate"
VERSIONS = "/apis/ebb.dev/v1/namespaces/{ns:str}/secrets/{name:str}/versions"
_JSON_PATCH, _APPLY = "application/json-patch+json", "application/apply-patch+yaml"
_MERGES = ("application/merge-patch+json", "application/strategic-merge-patch+json", "application/json")
_TAGS = ["Secrets and ConfigMaps"]


class ValueRoutes:
    """Handlers of Secrets and ConfigMaps."""

    def __init__(self, store: ValueStore, watches: Watches, clock: Clock) -> None:
        self._store, self._watches, self._clock = store, watches, clock

    async def list_or_watch(self, kind: Kind, project: str, request: Http) -> Response[Any]:
        query = request.query_params
        as_table = columns.wanted(request.headers.get("accept", ""))
        if flag(request, "watch"):
            wanted = watch_request(kind, project, request, root=prefix(kind))

            def show(obj: Object) -> Object:
                seen = _seen(kind, obj)
                return columns.table(kind, [seen], {}, self._clock.wall()) if as_table else seen

            return Stream(await self._watches.start(wanted, show), media_type="application/json")
        found = await self._store.list(kind, project, query.get("labelSelector", ""), query.get("fieldSelector", ""))
        if as_table:
            return answer(columns.table(kind, found["items"], found["metadata"], self._clock.wall()))
        return answer(found)

    async def get(self, kind: Kind, project: str, name: str, request: Http) -> Response[bytes]:
        if columns.wanted(request.headers.get("accept", "")):
            one = await self._store.listed(kind, project, name)
            return answer(columns.table(kind, [one], {}, self._clock.wall()))
        return answer(await self._store.get(kind, project, name))

    async def create(self, kind: Kind, project: str, request: Http) -> Response[bytes]:
        given = await read(request)
        made = await self._store.create(kind, project, given, dry_run=flag(request, "dryRun"))
        asked(request).name = objects.name_of(made)
        return answer(made, 201)

    async def replace(self, kind: Kind, project: str, name: str, request: Http) -> Response[bytes]:
        given = await read(request)
        made = await self._store.change(kind, project, name, lambda _: given, dry_run=flag(request, "dryRun"))
        return answer(made)

    async def patch(self, kind: Kind, project: str, name: str, request: Http) -> Response[bytes]:
        media = request.headers.get("content-type", _MERGES[0]).partition(";")[0].strip().lower()
        if media not in (*_MERGES, _JSON_PATCH, _APPLY):
            raise problems.unsupported_media(media, ", ".join((*_MERGES, _JSON_PATCH, _APPLY)))
        given, dry_run = await read(request), flag(request, "dryRun")
        change = _change(given)
        if media == _APPLY and not isinstance(given, dict):
            raise problems.bad_request("apply needs the object as a mapping")
        try:
            return answer(await self._store.change(kind, project, name, change, dry_run=dry_run))
        except ApiError as error:
            if error.code != 404 or media != _APPLY:
                raise
        body = {**given, "metadata": {**objects.meta(given), "name": name}}
        return answer(await self._store.create(kind, project, body, dry_run=dry_run), 201)

    async def delete(self, kind: Kind, project: str, name: str, request: Http) -> Response[bytes]:
        options = await read(request) if (await request.body()).strip() else {}
        return answer(await self._store.delete(kind, project, name, options, dry_run=flag(request, "dryRun")))

    async def versions(self, project: str, name: str) -> Response[bytes]:
        return answer({"items": await self._store.versions(project, name)})

    async def rotate(self, request: Http) -> Response[bytes]:
        wants = request.query_params.get("newKey", "true").lower() != "false"
        retire = request.query_params.get("retire", "false").lower() == "true"
        return answer(await self._store.rotate(new_key=wants, retire=retire))


def _seen(kind: Kind, obj: Object) -> Object:
    """An object of a watch, which comes as it is stored, as clients see it."""
    return values.listed(kind, msgspec.convert(obj, Values))


def _change(given: Any) -> Change:
    if isinstance(given, list):
        return lambda old: _patched(old, given)
    if not isinstance(given, dict):
        raise problems.bad_request("a merge patch is a mapping, a JSON patch a list")
    return lambda old: patches.merge(old, _plain(given))


def _patched(old: Object, operations: list[Any]) -> Any:
    try:
        return patches.json_patch(old, operations)
    except ApiError as error:
        raise ApiError(error.code, error.reason, "the JSON patch cannot be done on this object as it is") from None


def _plain(patch: Any) -> Any:
    """A strategic merge patch without its directives (`$setElementOrder/…`), which concern lists."""
    if not isinstance(patch, dict):
        return patch
    return {name: _plain(value) for name, value in patch.items() if not name.startswith("$")}


def kind_of(plural: str) -> Kind:
    """Raises ApiError 404 for what is not a resource."""
    kind = objects.VALUES.get(plural)
    if kind is None:
        raise problems.no_such_resource()
    return kind


def handlers(routes: ValueRoutes) -> list[BaseRouteHandler]:
    """Litestar's handlers over `routes`."""
    many, one, everywhere = f"{ROOT}/namespaces/{{ns:str}}/{{plural:str}}", "/{name:str}", f"{ROOT}/{{plural:str}}"

    @get(many, summary="List or watch (?watch=true) a project's; no values of Secrets", tags=_TAGS)
    async def list_values(ns: str, plural: str, request: Http) -> Response[Any]:
        return await routes.list_or_watch(kind_of(plural), ns, request)

    @get(everywhere, summary="List or watch those of all projects; no values of Secrets", tags=_TAGS)
    async def list_all_values(plural: str, request: Http) -> Response[Any]:
        return await routes.list_or_watch(kind_of(plural), "", request)

    @post(many, summary="Create", tags=_TAGS)
    async def create_values(ns: str, plural: str, request: Http) -> Response[bytes]:
        return await routes.create(kind_of(plural), ns, request)

    @get(many + one, summary="Read one, with its values", tags=_TAGS)
    async def read_values(ns: str, plural: str, name: str, request: Http) -> Response[bytes]:
        return await routes.get(kind_of(plural), ns, name, request)

    @put(many + one, summary="Replace", tags=_TAGS)
    async def replace_values(ns: str, plural: str, name: str, request: Http) -> Response[bytes]:
        return await routes.replace(kind_of(plural), ns, name, request)

    @patch(many + one, summary="Merge patch, JSON patch or server-side apply", tags=_TAGS)
    async def change_values(ns: str, plural: str, name: str, request: Http) -> Response[bytes]:
        return await routes.patch(kind_of(plural), ns, name, request)

    @delete(many + one, summary="Delete", status_code=200, tags=_TAGS)
    async def remove_values(ns: str, plural: str, name: str, request: Http) -> Response[bytes]:
        return await routes.delete(kind_of(plural), ns, name, request)

    @get(VERSIONS, summary="The versions of a Secret, the latest first; no values", tags=_TAGS)
    async def list_versions(ns: str, name: str) -> Response[bytes]:
        return await routes.versions(ns, name)

    rotates = "Seal all Secrets anew, with a new key (?newKey=false: the newest; ?retire=true: forget those that none needs)"

    @post(EVERYWHERE, summary=rotates, status_code=200, tags=_TAGS)
    async def rotate(request: Http) -> Response[bytes]:
        return await routes.rotate(request)

    return [
        list_values, list_all_values, create_values, read_values, replace_values, change_values, remove_values,
        list_versions, rotate,
    ]  # fmt: skip
