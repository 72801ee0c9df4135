"""Clients that send a request's body too slowly: each of them holds a slot of an instance, so a least rate is asked of them.

Every `body_look_s` the requests of HTTP/1 whose body is still to come are looked at, at no cost to the others. One that brought less
than the least since the last look, while it was being read, is answered 408. Streams of HTTP/2 may rest, as gRPC's do: they end
by the clocks of their service.
"""

from collections.abc import Iterable
from typing import Any

from ingress.client import Client


def look(clients: Iterable[Any], least_bytes: float) -> None:
    """End the requests that brought less than `least_bytes` since the last look."""
    for client in list(clients):
        if not isinstance(client, Client):
            continue
        exchange = client.sending
        if exchange is None or not exchange.owed:
            continue
        before, exchange.brought = exchange.brought, exchange.received_bytes
        if before >= 0 and exchange.received_bytes - before < least_bytes:
            exchange.failed("body-timeout", f"{exchange.received_bytes} bytes came, and too slowly")
