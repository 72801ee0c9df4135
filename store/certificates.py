"""Certificates of the front door, as the registry writes them and the ingress reads them."""

from store.model import V1, Model


class Certificate(Model, frozen=True, kw_only=True):
    """A certificate of the front door, for hosts of one project; `ENGINE` is the project of the engine's own."""

    v: int = V1
    project: str
    name: str
    """`<source>:<what for>`, such as `secret:shop-tls`, `acme:shop.example.org`, `local:default`."""
    source: str
    """secret: a Secret of type kubernetes.io/tls; acme; local: this engine's own authority."""
    hosts: list[str] = []
    """Names it is for, lower case; `*.x` stands for one label before x. Addresses too."""
    chain: str = ""
    """PEM, the certificate itself first; empty: there is none yet."""
    key: str = ""
    """PEM of the private key, under a key that is not in etcd (store/seal.py), bound to `<project>/<name>`."""
    not_before: float = 0
    not_after: float = 0
    made_from: str = ""
    """What it was made from: when that is another, it is made anew."""
    problem: str = ""
    """Why there is none, or why it is not renewed."""
    attempts: int = 0
    """How many tries failed in a row."""
    retry_at: float = 0

    @property
    def bound_to(self) -> str:
        return f"{self.project}/{self.name}"

    def covers(self, host: str) -> bool:
        """Whether a client that asked for `host` (lower case) accepts this certificate's names (RFC 6125 §6.4.3)."""
        return host in self.hosts or f"*.{host.partition('.')[2]}" in self.hosts


ENGINE = "_"
"""No project can be called so."""


class Challenge(Model, frozen=True, kw_only=True):
    """What every front door answers at `/.well-known/acme-challenge/<token>` of `host`, while it is proved to be ours (RFC 8555 §8.3)."""

    v: int = V1
    host: str
    token: str
    answer: str


class Account(Model, frozen=True, kw_only=True):
    """This engine's account at an ACME authority: who has its key has the account."""

    v: int = V1
    directory: str
    key: str
    """PEM, sealed as those of certificates, bound to `accounts/<authority>`."""
