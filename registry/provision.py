"""What is said of a host's certificate where ACME is asked for one: `CertificateProvisioned`, in Knative's words. Pure."""

from collections.abc import Iterable

from process.clock import rfc3339
from registry.conditions import FALSE, TRUE, UNKNOWN, condition
from registry.objects import Object
from store.model import Model

KIND = "CertificateProvisioned"
_ORDER = (FALSE, UNKNOWN, TRUE)


class Provision(Model, frozen=True, kw_only=True):
    """A `store.certificates.Certificate` as far as it is told of. `not_after` 0: there is none yet."""

    source: str = ""
    hosts: list[str] = []
    not_after: float = 0
    problem: str = ""
    retry_at: float = 0

    def covers(self, host: str) -> bool:
        """As the whole certificate's."""
        return host in self.hosts or f"*.{host.partition('.')[2]}" in self.hosts


def provisioned(host: str, found: Provision | None, now: float, *, severity: str = "") -> Object:
    """The condition of `host`; None: its certificate is not there yet. `now` is wall seconds."""
    if found is not None and found.not_after > now:
        if not found.problem:
            return condition(KIND, TRUE, severity=severity)
        said = f"the certificate of {host!r} ends {rfc3339(found.not_after)} and could not be renewed: {_problem(found)}"
        return condition(KIND, TRUE, "CertificateRenewFailed", said, severity)
    if found is not None and found.problem:
        said = f"no certificate for {host!r}: {_problem(found)}"
        return condition(KIND, FALSE, "CertificateProvisionFailed", said, severity)
    return condition(
        KIND, UNKNOWN, "CertificateNotReady", f"the certificate of {host!r} is asked for and not there yet", severity
    )


def worst(found: Iterable[Object]) -> Object | None:
    """Of several hosts' conditions the one that matters most; None of none."""
    return min(found, key=lambda each: _ORDER.index(each["status"]), default=None)


def _problem(found: Provision) -> str:
    return f"{found.problem}; tried again by itself at {rfc3339(found.retry_at)}"
