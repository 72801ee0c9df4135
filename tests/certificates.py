"""Certificates for tests: an authority in a directory, and records of the store as the registry writes them."""

import time
from pathlib import Path
from typing import Any

from registry import authority
from registry.authority import Authority
from store.certificates import Certificate
from store.seal import Keyring, add_key


class World:
    """An authority and a key file in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.ca, self.keys = directory / "ca.crt", directory / "certificates.key"
        authority.make(self.ca, directory / "ca.key", "localhost", time.time())
        add_key(self.keys)
        self.authority = Authority(self.ca, directory / "ca.key")
        self.ring = Keyring(self.keys)

    def record(self, *hosts: str, name: str = "local:default", project: str = "default", **more: Any) -> Certificate:
        """What the store holds of a new certificate for `hosts`."""
        pair = self.authority.issue(hosts, more.pop("now", time.time()))
        fields: dict[str, Any] = {"source": name.partition(":")[0], **more}
        return Certificate(
            project=project, name=name, hosts=list(pair.hosts), chain=pair.chain, not_before=pair.not_before,
            not_after=pair.not_after, key=self.ring.seal(pair.key, bound_to=f"{project}/{name}"), **fields,
        )  # fmt: skip
