"""The OpenAPI document against the routes themselves."""

import importlib
import inspect
import pkgutil
from typing import Any

import pytest
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler

import registry.api
from registry.api import app, describe
from registry.bounds import Bounds

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated inferred style")


def _made() -> list[BaseRouteHandler]:
    """The handlers of every module that has some, over nothing: they are not called."""
    found: list[BaseRouteHandler] = []
    for each in pkgutil.iter_modules(registry.api.__path__):
        module: Any = importlib.import_module(f"registry.api.{each.name}")
        if hasattr(module, "handlers"):
            found += module.handlers(*[None] * len(inspect.signature(module.handlers).parameters))
    return found


def test_every_route_is_in_the_document_and_nothing_else() -> None:
    api = app.build(_made(), lambda *_: None, Bounds())
    routes = {
        (str(method).lower(), route.path_format)
        for route in api.routes
        for handler in getattr(route, "route_handlers", [])
        if isinstance(handler, HTTPRouteHandler) and not route.path_format.startswith("/schema")
        for method in handler.http_methods
        if method != "OPTIONS"
    }
    document = describe.completed(api.openapi_schema.to_schema())
    described = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert len(routes) > 60
    assert described == routes


def test_what_a_plural_may_be_is_said() -> None:
    document = describe.completed(app.build(_made(), lambda *_: None, Bounds()).openapi_schema.to_schema())
    for root, kinds in (("/api/v1", {"secrets", "configmaps"}), ("/apis/serving.knative.dev/v1beta1", {"domainmappings"})):
        parameters = document["paths"][root + "/namespaces/{ns}/{plural}"]["post"]["parameters"]
        assert {kind for one in parameters if one["name"] == "plural" for kind in one["schema"]["enum"]} == kinds
