"""The inner door: the front door's port for instances, for calls between services. Only they reach it, and the kernel of their node vouches
for their addresses (`nodeagent/firewall.py`). It speaks what the plain door speaks.
"""

from ingress.client import Client
from ingress.gate import Gate
from ingress.http2 import Http2
from ingress.listener import Listener


class InnerClient(Client):
    """A connection of an instance's."""

    __slots__ = ()
    inner = True


class InnerHttp2(Http2):
    """The same, speaking HTTP/2."""

    inner = True


class InnerListener(Listener):
    """Listens at the gateway's address, which the machine may not have yet."""

    freely = True

    def __init__(self, gate: Gate) -> None:
        super().__init__(gate, serve=InnerClient)

    def _http2(self, client: Client) -> Http2:
        return InnerHttp2(self, self._gate)
