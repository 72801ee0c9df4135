"""The API's own TLS: a certificate of the local authority, made anew while it is served, long before it ends."""

import asyncio
import os
import ssl

from process import logs
from process.clock import Clock
from registry.authority import LIFETIME_S, Authority
from registry.pair import Pair

LOOK_S = 3600.0
log = logs.get("registry")


class ServingTls:
    """`context` serves; TLS 1.2 or later, HTTP/1.1. `hosts` are the certificate's names."""

    def __init__(self, authority: Authority, hosts: tuple[str, ...], clock: Clock) -> None:
        self._authority, self._hosts, self._clock = authority, hosts, clock
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self._pair = self._take()

    async def renew(self) -> None:
        """For ever: a new certificate when a third of the old one's time is left. Connections that are open keep theirs."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._pair.not_after - self._clock.wall() < LIFETIME_S / 3:
                self._pair = self._take()
                log.info("the API's certificate was renewed", until=self._pair.not_after)

    def _take(self) -> Pair:
        pair = self._authority.issue(self._hosts, self._clock.wall())
        # OpenSSL reads pairs from files alone: one in memory that no directory names.
        fd = os.memfd_create("ebb-api", os.MFD_CLOEXEC)
        try:
            os.write(fd, pair.chain.encode() + pair.key)
            self.context.load_cert_chain(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
        return pair
