"""The Litestar application: handlers together, errors as Status objects, requests counted by route."""

import copy
import time
from collections.abc import Sequence
from typing import Any

from litestar import Litestar, Response, get
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.types import ASGIApp, Guard, Message, Receive, Scope, Send

from process import logs, metrics
from registry.api import describe, discovery, openapi, problems
from registry.api.doors import HEALTH
from registry.api.problems import ApiError
from registry.api.routes import Http, answer
from registry.bounds import Bounds
from registry.objects import GROUP, VERSIONS
from registry.quotas import OverQuota
from store.errors import StoreError

log = logs.get("registry.api")
_REQUESTS = metrics.counter("registry_requests_total", "API requests.", "route", "method", "code")
_SECONDS = metrics.histogram("registry_request_seconds", "Time to the head of the answer.", "route", "method")


def build(handlers: Sequence[BaseRouteHandler], authorise: Guard, bounds: Bounds) -> Litestar:
    """The application over `handlers`; `authorise` is asked before each."""
    return Litestar(
        route_handlers=[*_discovery(), *handlers],
        exception_handlers={
            ApiError: _api_error,
            OverQuota: _over_quota,
            StoreError: _store_error,
            HTTPException: _http_error,
            Exception: _bug,
        },
        middleware=[_counted],
        guards=[authorise],
        request_max_body_size=bounds.body_max_bytes,
        state=State({"body_max_bytes": bounds.body_max_bytes}),
        logging_config=None,
        openapi_config=OpenAPIConfig(
            title="Ebb",
            version="v1",
            description="Knative Serving v1 resources, and Ebb's own under /apis/ebb.dev/v1.",
            path="/schema",
            render_plugins=[JsonRenderPlugin(path="/openapi.json")],
        ),
    )


def _discovery() -> list[BaseRouteHandler]:
    said: dict[str, Any] = {
        "/version": discovery.version(),
        "/api": discovery.core_versions(),
        "/api/v1": discovery.core_resources(),
        "/apis": discovery.groups(),
        f"/apis/{GROUP}": discovery.group(),
        **{f"/apis/{GROUP}/{version}": discovery.resources(version) for version in VERSIONS},
        "/openapi/v3": openapi.index(),
        **{f"/openapi/v3/{openapi.group_path(version)}": openapi.document(version) for version in VERSIONS},
        f"/openapi/v3/{openapi.CORE_PATH}": openapi.core_document(),
    }

    @get(list(said), summary="Discovery", tags=["Discovery"])
    async def discover(request: Http) -> Response[bytes]:
        return answer(said[request.url.path.rstrip("/")])

    @get("/openapi.json", summary="This description", tags=["Discovery"])
    async def description(request: Http) -> Response[bytes]:
        return answer(describe.completed(copy.deepcopy(request.app.openapi_schema.to_schema())))

    @get(sorted(HEALTH), summary="Whether the API answers; open to all", tags=["Discovery"], media_type="text/plain")
    async def health() -> Response[bytes]:
        return Response(b"ok", media_type="text/plain")

    return [discover, description, health]


def _api_error(_: Http, error: ApiError) -> Response[bytes]:
    made = answer(error.status(), error.code)
    if "retryAfterSeconds" in error.details:
        made.headers["Retry-After"] = str(error.details["retryAfterSeconds"])
    return made


def _over_quota(request: Http, error: OverQuota) -> Response[bytes]:
    return _api_error(request, problems.over_quota(error.what, error.limit, error.has, error.project))


def _store_error(request: Http, error: StoreError) -> Response[bytes]:
    log.warning("store failed", path=request.url.path, error=str(error))
    return _api_error(request, problems.unavailable(f"etcd does not answer: {error}; try again in a moment"))


def _http_error(request: Http, error: HTTPException) -> Response[bytes]:
    if error.status_code == 413:
        return _api_error(request, problems.too_large(request.app.state.body_max_bytes))
    if error.status_code == 404:
        return _api_error(request, problems.no_such_resource())
    if error.status_code == 405:
        return _api_error(request, problems.not_allowed(f"{request.method} is not allowed on {request.url.path}"))
    return _api_error(request, ApiError(error.status_code, "BadRequest", str(error.detail)))


def _bug(request: Http, error: Exception) -> Response[bytes]:
    log.exception("request failed", method=request.method, path=request.url.path, error=repr(error))
    return _api_error(
        request, ApiError(500, "InternalError", f"the registry failed at this request: {type(error).__name__}; see its log")
    )


def _counted(app: ASGIApp) -> ASGIApp:
    """Counts every request by the template of its path, so that names do not become labels."""

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                route, method = str(scope.get("path_template") or "none"), str(scope.get("method", ""))
                _REQUESTS.labels(route, method, str(message["status"])).inc()
                _SECONDS.labels(route, method).observe(time.perf_counter() - began)
            await send(message)

        await app(scope, receive, counting)

    return middleware
