"""Which certificate a client gets for the name it asks for (SNI).

A certificate is for hosts of its own project. Whose host it is says the route table, so that nobody can put a certificate in front
of another project's app. A host that no route names (yet) can have what the engine issued itself, and nothing that somebody brought.
An exact name goes before a wildcard; then one that is valid before one that is not; what was brought (a Secret) before ACME's,
that before the local authority's; the newer before the older.
"""

from collections.abc import Callable

from store.certificates import ENGINE, Certificate

_ORDER = {"secret": 0, "acme": 1, "local": 2}
Project = Callable[[str], str]


class Certificates:
    """All certificates of this front door. `project_of(host)` is the project whose route answers to `host`, or empty."""

    def __init__(self, project_of: Project) -> None:
        self._project_of = project_of
        self._by_key: dict[str, Certificate] = {}
        self._by_host: dict[str, list[Certificate]] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def __contains__(self, certificate: Certificate) -> bool:
        return certificate in self._by_key.values()

    def put(self, key: str, certificate: Certificate) -> None:
        """The certificate at `key` is this one from now on."""
        self.delete(key)
        if not certificate.chain:
            return
        self._by_key[key] = certificate
        for host in certificate.hosts:
            self._by_host.setdefault(host, []).append(certificate)

    def delete(self, key: str) -> None:
        old = self._by_key.pop(key, None)
        for host in old.hosts if old is not None else ():
            left = [each for each in self._by_host[host] if each is not old]
            if left:
                self._by_host[host] = left
            else:
                del self._by_host[host]

    def choose(self, name: str, wall_s: float) -> Certificate | None:
        """For a client that asks for `name`; empty: it said none, and gets the engine's own. None: there is no certificate."""
        if not name:
            own = [each for each in self._by_host.get("localhost", ()) if each.project == ENGINE]
            return min(own, key=lambda each: _rank(each, wall_s), default=None)
        host = name.rstrip(".").lower()
        project = self._project_of(host)
        for pattern in (host, f"*.{host.partition('.')[2]}"):
            found = [each for each in self._by_host.get(pattern, ()) if _may(each, project)]
            if found:
                return min(found, key=lambda each: _rank(each, wall_s))
        return None


def _may(certificate: Certificate, project: str) -> bool:
    if not project:
        return certificate.source != "secret"
    return certificate.project in (project, ENGINE)


def _rank(certificate: Certificate, wall_s: float) -> tuple[bool, int, float]:
    valid = certificate.not_before <= wall_s < certificate.not_after
    return not valid, _ORDER.get(certificate.source, len(_ORDER)), -certificate.not_before
