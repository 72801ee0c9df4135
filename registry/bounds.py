"""Bounds and defaults that an operator may set."""

from dataclasses import dataclass

LOCAL_DOMAIN = "svc.cluster.local"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What requests and deploys may ask for, and what they get when they do not ask."""

    timeout_default_s: int = 300
    timeout_max_s: int = 3600
    container_concurrency_max: int = 1000
    progress_deadline_s: float = 600
    body_max_bytes: int = 1_572_864
    """1.5 MiB, as etcd takes it."""
    own_domains: tuple[str, ...] = ("localhost", LOCAL_DOMAIN)
    """Hosts there and below are the platform's: nobody maps them."""
    tag_header: bool = False
    """Whether the header Knative-Serving-Tag names a tag where a route does not say (`ebb.dev/tag-header`)."""
    acme: bool = False
    """Whether public hosts get certificates by ACME."""


@dataclass(frozen=True, slots=True)
class Naming:
    """How hosts and URLs are made: `<service>.<project>.<domain>`."""

    domain: str = "localhost"
    url_port: int = 8080
    url_scheme: str = "http"
    https_port: int = 0
    """Of TLS, as people reach it; 0: there is none."""

    def host(self, name: str, project: str, domain: str = "") -> str:
        return f"{name}.{project}.{domain or self.domain}".lower()

    def url(self, host: str, *, secure: bool = False) -> str:
        """The URL of a host; the scheme's own port is left out. `secure`: by TLS, where there is TLS. Inner hosts have port 80."""
        if host.endswith(f".{LOCAL_DOMAIN}"):
            return f"http://{host}"
        scheme, port = ("https", self.https_port) if secure and self.https_port else (self.url_scheme, self.url_port)
        usual = {"http": 80, "https": 443}.get(scheme)
        return f"{scheme}://{host}" if port == usual else f"{scheme}://{host}:{port}"
