"""Exports spans to an OpenTelemetry collector: batched, bounded, in the background. Only loaded where `--traces` is set.

A request adds one object to a list; a batch goes out once a second or at `BATCH` spans. What the collector does not take in time is dropped
and counted: a collector that is away costs requests nothing.
"""

import asyncio
from typing import TYPE_CHECKING

import aiohttp

from activator.balance import Target
from ingress.metrics import Metrics
from ingress.spans import Context, Ended, context, encode
from ingress.traffic import Choice
from process import logs

if TYPE_CHECKING:
    from ingress.forward import Exchange
    from ingress.gate import Gate

log = logs.get("ingress")

BATCH = 256
WAITING_MOST = 4096
EVERY_S = 1.0
SEND_TIME_S = 3.0


class Tracer:
    """`endpoint` is a collector's base URL (OTLP/HTTP, port 4318 by custom); `share` of the traces begun here are sampled."""

    def __init__(self, endpoint: str, share: float, member: str, metrics: Metrics) -> None:
        if not endpoint.startswith(("http://", "https://")):
            raise ValueError(f"--traces {endpoint!r}: the URL of a collector, like http://127.0.0.1:4318")
        if not 0 <= share <= 1:
            raise ValueError(f"--traces-share {share}: from 0 to 1")
        self._url = endpoint.rstrip("/") + "/v1/traces"
        self._share = share
        self._resource = {"service.name": "ebb-ingress", "service.instance.id": member}
        self._waiting: list[Ended] = []
        self._full = asyncio.Event()
        self._well = True
        self._metrics = metrics

    def begin(self, gate: "Gate", exchange: "Exchange") -> Context:
        """Give the request of `exchange` its place in a trace; the instance is told of it."""
        request, made = exchange.request, gate.identify()
        exchange.span = found = context(request.trace, made, made[16:], gate.chance(), self._share)
        request.trace = found.header
        return found

    def end(self, gate: "Gate", exchange: "Exchange", choice: Choice | None, target: Target | None, now: float) -> None:
        """`exchange` is over."""
        span = exchange.span or self.begin(gate, exchange)
        if not span.sampled:
            return
        if len(self._waiting) >= WAITING_MOST:
            self._metrics.spans_lost += 1
            return
        self._waiting.append(_ended(exchange, span, choice, target, now, gate.clock.wall()))
        if len(self._waiting) >= BATCH:
            self._full.set()

    async def run(self) -> None:
        """Send what waits. Never returns."""
        timeout = aiohttp.ClientTimeout(total=SEND_TIME_S)
        async with aiohttp.ClientSession(timeout=timeout, headers={"Content-Type": "application/json"}) as session:
            while True:
                try:
                    await asyncio.wait_for(self._full.wait(), EVERY_S)
                except TimeoutError:
                    pass
                self._full.clear()
                while self._waiting:
                    batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                    await self._send(session, batch)

    async def _send(self, session: aiohttp.ClientSession, batch: list[Ended]) -> None:
        wrong = ""
        try:
            async with session.post(self._url, data=encode(batch, self._resource)) as answer:
                if answer.status >= 300:
                    wrong = f"status {answer.status}"
        except (aiohttp.ClientError, TimeoutError) as error:
            wrong = str(error) or f"no answer within {SEND_TIME_S:g} s"
        if wrong:
            self._metrics.spans_lost += len(batch)
        else:
            self._metrics.spans_sent += len(batch)
        if self._well == bool(wrong):
            self._well = not wrong
            log.warning("spans are lost" if wrong else "spans are taken again", collector=self._url, error=wrong)


def _ended(exchange: "Exchange", span: Context, choice: Choice | None, target: Target | None, now: float, wall: float) -> Ended:
    request = exchange.request
    method, host = request.method.decode("latin-1"), request.host.decode("latin-1")
    path, _, query = request.target.decode("latin-1").partition("?")
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "url.path": path,
        "server.address": host,
        "client.address": request.client or exchange.front.client,
        "network.protocol.version": exchange.front.protocol.removeprefix("HTTP/"),
    }
    if query:
        attributes["url.query"] = query
    if choice is not None:
        attributes["ebb.revision"] = choice.revision
    if target is not None:
        attributes["ebb.instance"] = target.instance
    if exchange.cause_id:
        attributes["ebb.cause_id"] = exchange.cause_id
    return Ended(
        context=span,
        at=wall,
        took_s=now - exchange.started,
        queued_s=exchange.waited_s,
        connect_s=exchange.connect_s,
        sent_after_s=max(0.0, (exchange.sent_at or now) - exchange.started),
        name=f"{method} {choice.revision if choice is not None else host}",
        status=exchange.status,
        reason=exchange.reason,
        attributes=attributes,
    )
