"""`GET …/certificates`: what the front door has for TLS, by source and host. Never a key."""

from typing import Any

from litestar import Response, get
from litestar.handlers import BaseRouteHandler

from process.clock import rfc3339
from registry.api.ebb import ROOT
from registry.api.problems import ApiError
from registry.api.routes import answer
from registry.issuing import SECRET
from store import keys
from store.certificates import ENGINE, Certificate
from store.watch import Table

_TAGS = ["Certificates"]


def shown(certificate: Certificate) -> dict[str, Any]:
    """As clients see it."""
    times = {"notBefore": certificate.not_before, "notAfter": certificate.not_after, "retryAt": certificate.retry_at}
    return {
        "name": certificate.name.partition(":")[2],
        "source": certificate.source,
        "hosts": certificate.hosts,
        "ready": bool(certificate.chain),
        **({"madeFrom": certificate.made_from} if certificate.source == SECRET else {}),
        **{name: rfc3339(at) for name, at in times.items() if at},
        **({"problem": certificate.problem} if certificate.problem else {}),
    }


def handlers(certificates: Table[Certificate] | None) -> list[BaseRouteHandler]:
    """`certificates` None: this registry keeps none."""

    @get(ROOT + "/namespaces/{ns:str}/certificates", summary="Certificates of the front door", tags=_TAGS)
    async def certificates_of(ns: str) -> Response[bytes]:
        if certificates is None:
            raise ApiError(409, "NoTLS", "TLS is off here; start the engine with --https ADDRESS:PORT")
        prefixes = tuple(keys.certificate(project, "") for project in (ns, ENGINE))
        return answer({"items": [shown(each) for key, each in sorted(certificates.items()) if key.startswith(prefixes)]})

    return [certificates_of]
