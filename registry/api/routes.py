"""The Knative paths: HTTP in, `Resources` and `Watches` asked, JSON out."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
from litestar import Request as HttpRequest
from litestar import Response, delete, get, patch, post, put
from litestar.handlers import BaseRouteHandler
from litestar.response import Stream

from process.clock import Clock
from registry import objects
from registry.api import body, columns, patches, problems, protobuf
from registry.api.gate import asked
from registry.api.resources import Change, Page, Resources
from registry.api.watching import Request, Watches
from registry.objects import GROUP, KINDS, VERSIONS, Kind, Object

_JSON = "application/json"
_MERGE, _JSON_PATCH, _APPLY = "application/merge-patch+json", "application/json-patch+json", "application/apply-patch+yaml"
WATCH_DEFAULT_S, WATCH_MAX_S = 1800.0, 3600.0
Http = HttpRequest[Any, Any, Any]


def _kind_of(version: str, plural: str) -> Kind:
    """Raises ApiError 404 for what is not a resource of `version`."""
    kind = KINDS.get(plural)
    if kind is None or kind.version != version:
        raise problems.no_such_resource()
    return kind


def answer(value: Any, status: int = 200) -> Response[bytes]:
    """`value` as JSON."""
    return Response(msgspec.json.encode(value), status_code=status, media_type=_JSON)


def flag(request: Http, name: str) -> bool:
    return request.query_params.get(name, "").lower() in ("true", "1", "all")


def number(request: Http, name: str, default: float = 0) -> float:
    """A query parameter as a number. Raises ApiError 400."""
    text = request.query_params.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        raise problems.bad_request(f"query parameter {name}={text!r}; allowed: a number") from None
    if not 0 <= value < 2**63:
        raise problems.bad_request(f"query parameter {name}={text!r}; allowed: a number from 0")
    return value


def watch_request(kind: Kind, project: str, request: Http, *, root: str = "") -> Request:
    """What a watch was asked for in the query. `root`: where the kind's objects are, when not with API objects."""
    query = request.query_params
    return Request(
        kind=kind,
        project=project,
        label_selector=query.get("labelSelector", ""),
        field_selector=query.get("fieldSelector", ""),
        after=int(number(request, "resourceVersion")),
        timeout_s=min(number(request, "timeoutSeconds", WATCH_DEFAULT_S) or WATCH_DEFAULT_S, WATCH_MAX_S),
        bookmarks=flag(request, "allowWatchBookmarks"),
        initial_events=flag(request, "sendInitialEvents"),
        root=root,
    )


class KnativeRoutes:
    """Handlers of Services, Configurations, Routes, Revisions and DomainMappings."""

    def __init__(self, resources: Resources, watches: Watches, clock: Clock) -> None:
        self._resources, self._watches, self._clock = resources, watches, clock

    async def list_or_watch(self, kind: Kind, project: str, request: Http) -> Response[Any]:
        query = request.query_params
        as_table = columns.wanted(request.headers.get("accept", ""))
        if flag(request, "watch"):
            return await self._watch(kind, project, request, as_table)
        page = Page(
            label_selector=query.get("labelSelector", ""),
            field_selector=query.get("fieldSelector", ""),
            limit=int(number(request, "limit")),
            token=query.get("continue", ""),
        )
        found = await self._resources.page(kind, project, page)
        if as_table:
            return answer(columns.table(kind, found["items"], found["metadata"], self._clock.wall()))
        return answer(found)

    async def _watch(self, kind: Kind, project: str, request: Http, as_table: bool) -> Response[Any]:
        def table(obj: Object) -> Object:
            return columns.table(kind, [obj], {"resourceVersion": obj["metadata"]["resourceVersion"]}, self._clock.wall())

        lines = await self._watches.start(watch_request(kind, project, request), table if as_table else lambda obj: obj)
        return Stream(lines, media_type=_JSON)

    async def get(self, kind: Kind, project: str, name: str, request: Http) -> Response[bytes]:
        obj = await self._resources.get(kind, project, name)
        if columns.wanted(request.headers.get("accept", "")):
            return answer(columns.table(kind, [obj], {}, self._clock.wall()))
        return answer(obj)

    async def create(self, kind: Kind, project: str, request: Http) -> Response[bytes]:
        given = await read(request)
        made = await self._resources.create(kind, project, given, dry_run=flag(request, "dryRun"))
        asked(request).name = objects.name_of(made)
        return answer(made, 201)

    async def replace(self, kind: Kind, project: str, name: str, request: Http) -> Response[bytes]:
        given = await read(request)
        return answer(await self._resources.replace(kind, project, name, given, dry_run=flag(request, "dryRun")))

    async def patch(self, kind: Kind, project: str, name: str, request: Http) -> Response[bytes]:
        media = request.headers.get("content-type", _MERGE).partition(";")[0].strip().lower()
        if media not in (_MERGE, _JSON_PATCH, _APPLY, _JSON):
            raise problems.unsupported_media(media, f"{_MERGE}, {_JSON_PATCH}, {_APPLY}")
        given, dry_run = await read(request), flag(request, "dryRun")
        if media == _APPLY:
            obj, created = await self._resources.apply(kind, project, name, given, dry_run=dry_run)
            return answer(obj, 201 if created else 200)
        return answer(await self._resources.patch(kind, project, name, _change(given), dry_run=dry_run))

    async def delete(self, kind: Kind, project: str, name: str, request: Http) -> Response[bytes]:
        data = await request.body()
        options = body.parse(data, request.headers.get("content-type", "")) if data.strip() else {}
        if isinstance(options, dict) and "propagationPolicy" in request.query_params:
            options = {**options, "propagationPolicy": request.query_params["propagationPolicy"]}
        return answer(await self._resources.delete(kind, project, name, options, dry_run=flag(request, "dryRun")))


async def read(request: Http) -> Any:
    """The request's body as plain values."""
    if request.headers.get("content-type", "").startswith(protobuf.MEDIA):
        return protobuf.parse(await request.body())
    return body.parse(await request.body(), request.headers.get("content-type", ""))


def _change(given: Any) -> Change:
    if isinstance(given, list):
        return lambda old: patches.json_patch(old, given)
    if not isinstance(given, dict):
        raise problems.bad_request("a merge patch is a mapping, a JSON patch a list")
    return lambda old: patches.merge(old, given)


def handlers(routes: KnativeRoutes) -> list[BaseRouteHandler]:
    """Litestar's handlers over `routes`, for every version of the group."""
    return [handler for version in VERSIONS for handler in _handlers(routes, version)]


def _handlers(routes: KnativeRoutes, version: str) -> list[BaseRouteHandler]:
    root, one = f"/apis/{GROUP}/{version}", "/{name:str}"
    objects, everywhere = f"{root}/namespaces/{{ns:str}}/{{plural:str}}", f"{root}/{{plural:str}}"
    kind_of = partial(_kind_of, version)

    @get(objects, summary="List or watch (?watch=true) the objects of a project", tags=["Knative Serving"])
    async def list_(ns: str, plural: str, request: Http) -> Response[Any]:
        return await routes.list_or_watch(kind_of(plural), ns, request)

    @get(everywhere, summary="List or watch the objects of all projects", tags=["Knative Serving"])
    async def list_all(plural: str, request: Http) -> Response[Any]:
        return await routes.list_or_watch(kind_of(plural), "", request)

    @post(objects, summary="Create", tags=["Knative Serving"])
    async def create(ns: str, plural: str, request: Http) -> Response[bytes]:
        return await routes.create(kind_of(plural), ns, request)

    @get([objects + one, objects + one + "/status"], summary="Read one", tags=["Knative Serving"])
    async def read_one(ns: str, plural: str, name: str, request: Http) -> Response[bytes]:
        return await routes.get(kind_of(plural), ns, name, request)

    @put(objects + one, summary="Replace", tags=["Knative Serving"])
    async def replace(ns: str, plural: str, name: str, request: Http) -> Response[bytes]:
        return await routes.replace(kind_of(plural), ns, name, request)

    @patch(objects + one, summary="Merge patch, JSON patch or server-side apply", tags=["Knative Serving"])
    async def change(ns: str, plural: str, name: str, request: Http) -> Response[bytes]:
        return await routes.patch(kind_of(plural), ns, name, request)

    @delete(objects + one, summary="Delete, with all it owns", status_code=200, tags=["Knative Serving"])
    async def remove(ns: str, plural: str, name: str, request: Http) -> Response[bytes]:
        return await routes.delete(kind_of(plural), ns, name, request)

    return [list_, list_all, create, read_one, replace, change, remove]


Handler = Callable[..., Awaitable[Response[Any]]]
