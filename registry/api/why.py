"""`…/services/{name}/why`: why a service has the instances it has, in the words of the autoscaler that decides."""

from typing import Any

import msgspec
from litestar import Response, get
from litestar.handlers import BaseRouteHandler

from registry.api.ebb import ROOT
from registry.api.problems import ApiError
from registry.api.routes import answer
from registry.observed import Observed
from store.bus import Bus
from store.errors import BusUnavailable, NoResponder
from store.messages import WHY, AskWhy, Why
from store.model import decode, encode

TIMEOUT_S = 3.0
MOST = 20
"""Revisions told of: the newest."""


class WhyRoutes:
    """Asks on the bus for the revisions of a service."""

    def __init__(self, observed: Observed, bus: Bus) -> None:
        self._observed, self._bus = observed, bus

    async def why(self, project: str, service: str) -> Response[bytes]:
        """The newest revisions first. 404 when there is none, 503 when no autoscaler answers."""
        found = [r for _, r in self._observed.revisions.items() if r.project == project and r.service == service]
        if not found:
            raise ApiError(
                404, "NotFound", f"service {service!r} of project {project!r} has no revision; look at `ebb services`"
            )
        found.sort(key=lambda r: (-r.created_at, r.name))
        question = encode(AskWhy(revisions=[r.key for r in found[:MOST]]))
        try:
            data = await self._bus.request(WHY, question, timeout_s=TIMEOUT_S)
        except (NoResponder, BusUnavailable) as error:
            cure = "is one running, and NATS? look at `ebb status`"
            raise ApiError(503, "NoAutoscaler", f"no autoscaler that leads says why ({error}); {cure}") from None
        told: list[Any] = [msgspec.to_builtins(each) for each in decode(Why, data).revisions]
        return answer({"service": service, "project": project, "revisions": told})


def handlers(routes: WhyRoutes) -> list[BaseRouteHandler]:
    """Litestar's handlers over `routes`."""

    @get(
        ROOT + "/namespaces/{ns:str}/services/{name:str}/why",
        summary="The autoscaler's last decisions on a service, step by step",
        tags=["Ebb"],
    )
    async def why(ns: str, name: str) -> Response[bytes]:
        return await routes.why(ns, name)

    return [why]
