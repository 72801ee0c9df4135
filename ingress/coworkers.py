"""How the workers of several machines know each other: by the certificates of the cluster's own authority."""

import ssl
from typing import Any

from process.identity import INGRESS, Identity, peer


class Coworkers:
    """`activator.peers.Secure`, for a worker with `identity`. Call `renew` when that was renewed."""

    server_name = INGRESS

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._served: list[ssl.SSLContext] = []

    def client(self) -> ssl.SSLContext:
        return self._identity.client()

    def server(self) -> ssl.SSLContext:
        self._served.append(self._identity.server())
        return self._served[-1]

    def admits(self, transport: Any) -> bool:
        """Of all that have a certificate of the cluster's, only ingresses are workers."""
        who = peer(transport)
        return who is not None and who.role == self._identity.who.role

    def renew(self) -> None:
        """Raises BadIdentity."""
        for context in self._served:
            self._identity.reload(context)
