"""Settings of the registry."""

from process.settings import Common


class Settings(Common, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `python -m registry` takes besides the common ones."""

    listen: str = "127.0.0.1:8090"
    """host:port of the API."""
    domain: str = "localhost"
    """Hosts are `<service>.<project>.<domain>`."""
    url_port: int = 8080
    """The ingress's port as people reach it, for status.url."""
    url_scheme: str = "http"
    https_port: int = 0
    """The ingress's port for TLS as people reach it; 0: there is none."""
    data: str = "/var/lib/ebb/registry"
    """Directory for uploads on their way to the nodes."""
    upload_max_bytes: int = 20 * 2**30
    member: str = ""
    """This process's name among registries; empty: random."""
    lead_ttl_s: float = 3
    """How long after the death of the leading controller another one takes over, at most."""
    timeout_max_s: int = 3600
    """The longest timeoutSeconds a service may ask for."""
    tag_header: bool = False
    """Whether the header Knative-Serving-Tag chooses a tag, of services that do not say (ebb.dev/tag-header)."""
    secret_key_file: str = ""
    """File of the keys that Secrets are sealed with, mode 0600 (store/seal.py); empty: Secrets are refused."""
    identity_key_file: str = ""
    """File of the keys that the keys of identity tokens are sealed with, mode 0600; empty: no identity tokens are given."""
    certificate_key_file: str = ""
    """File of the keys that certificates' private keys are sealed with, mode 0600; empty: there is no TLS here."""
    local_ca: str = ""
    """Certificate of the local authority; empty: there is none."""
    local_ca_key: str = ""
    """Its private key, mode 0600."""
    listen_tls: bool = False
    """Whether the API speaks TLS, with a certificate signed by the local authority. Beyond loopback it must."""
    admin_token_file: str = ""
    """File with a token (mode 0600) that is to be the first admin's; one that was used or revoked before stays what it is."""
    oidc_file: str = ""
    """File of the issuers whose tokens are accepted (registry/oidc.py); empty: none."""
    principal_per_s: float = 500
    """Requests a second of one user or robot, ten times as many at once; 0: no limit."""
    address_per_s: float = 1000
    """Requests a second from one address, ten times as many at once; 0: no limit."""
    acme_directory: str = ""
    """URL of an ACME authority's directory: hosts of the world's get certificates from it; empty: they do not."""
    acme_email: str = ""
    """Who is told by the authority of what matters."""
    acme_ca_file: str = ""
    """What the authority's own TLS is checked with; empty: the system's."""
