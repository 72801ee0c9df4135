"""Requests for a host that no route names yet.

Who deploys is told "Ready" by the registry, and may call before the ingress has heard of the route: etcd's watch takes a moment. So a
request for an unknown host is held for `HOLD_S`, and goes on as soon as a route names its host. At most `MOST` are held; past
that they are refused at once, so that a flood of made-up hosts costs little.
"""

import asyncio
from typing import Any

from ingress.routes import Routes

HOLD_S = 0.25
MOST = 1_000


class Strangers:
    """All that are held at one front door. `exchange` is a `forward.Exchange`."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._held: dict[Any, None] = {}
        routes.on_put = self._look_again

    def hold(self, exchange: Any) -> bool:
        """Whether `exchange` is begun again later; False: it was held before, or too many are."""
        if exchange.held or len(self._held) >= MOST:
            return False
        exchange.held = True
        self._held[exchange] = None
        asyncio.get_running_loop().call_later(HOLD_S, self._let_go, exchange)
        return True

    def _let_go(self, exchange: Any) -> None:
        if self._held.pop(exchange, self) is None and not exchange.ended:
            exchange.begin()

    def _look_again(self) -> None:
        for exchange in list(self._held):
            if exchange.ended or self._routes.find(exchange.request.host) is not None:
                self._let_go(exchange)
