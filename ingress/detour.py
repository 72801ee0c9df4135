"""Hosts at which the front door itself answers some requests: proofs for ACME, and redirects to TLS.

Such a host's Split has no share of its own, so only its requests come here; all others pay nothing for it. A proof goes before a redirect:
the authority asks by plain HTTP.
"""

from typing import TYPE_CHECKING

from ingress.http1 import Request, Response
from ingress.traffic import Split

if TYPE_CHECKING:
    from ingress.forward import Exchange

CHALLENGE = b"/.well-known/acme-challenge/"


class Detour(Split):
    """`behind`: where requests go that are not answered here. `answers`: token → proof. `https_port`: where to redirect, 0: nowhere."""

    __slots__ = ("answers", "behind", "https_port")

    def __init__(self, behind: Split | None, answers: dict[str, str], https_port: int) -> None:
        super().__init__(behind.project if behind is not None else "", [])
        self.behind = behind
        self.answers = answers
        self.https_port = https_port

    def answer(self, request: Request, secure: bool) -> tuple[Response, bytes] | None:
        """What the front door says to `request`, `secure` when its client speaks TLS; None: it is to be passed on."""
        path = request.target
        if self.answers and path.startswith(CHALLENGE):
            proof = self.answers.get(path[len(CHALLENGE) :].decode("latin-1"))
            if proof is not None:
                return _response(request, 200, b"OK", b"application/octet-stream", proof.encode())
        if not self.https_port or secure:
            return None
        location = b"https://" + _name(request.host)
        if self.https_port != 443:
            location += b":%d" % self.https_port
        location += path if path.startswith(b"/") else b"/"
        status, phrase = (301, b"Moved Permanently") if request.method in (b"GET", b"HEAD") else (308, b"Permanent Redirect")
        response, body = _response(request, status, phrase, b"text/plain; charset=utf-8", b"this host is served by TLS only\n")
        response.fields.append((b"Location", location))
        return response, body

    def took(self, exchange: "Exchange", secure: bool) -> bool:
        """Whether `exchange` was answered here, and has ended."""
        answered = self.answer(exchange.request, secure)
        if answered is not None:
            exchange.answered(*answered, True, exchange.started)
        return answered is not None


def _response(request: Request, status: int, phrase: bytes, kind: bytes, body: bytes) -> tuple[Response, bytes]:
    length = len(body)
    response = Response(status, b"%d %b" % (status, phrase), [(b"Content-Type", kind), (b"Content-Length", b"%d" % length)])
    response.length = length
    return response, b"" if request.method == b"HEAD" else body


def _name(host: bytes) -> bytes:
    """`host` without its port."""
    return host if host.endswith(b"]") or b":" not in host else host.rpartition(b":")[0]
