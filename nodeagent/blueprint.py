"""From a revision, its image and a network to what containerd is given: the spec and the files it names on the host."""

import os
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from nodeagent import cgroups, ocispec, profiles, resolv
from nodeagent.cgroups import Places
from nodeagent.firewall import METADATA
from nodeagent.images.facade import ReadyImage
from nodeagent.ocispec import Files, HostFacts
from nodeagent.profiles import Fence
from nodeagent.rootfs import Mount
from nodeagent.userdb import ResolvedUser, RootfsView, layers_of, resolve
from store.model import Revision


class Network(Protocol):
    @property
    def ns_path(self) -> str: ...
    @property
    def address(self) -> str: ...


class Blueprints:
    """Builds specs. `root` holds a directory for each instance."""

    def __init__(self, root: Path, places: Places) -> None:
        self._root = root
        self._places = places
        self._resolv = root.parent / "resolv.conf"
        self.host = host_facts()
        """What specs have to know of this machine."""
        self._users: dict[tuple[str, str], ResolvedUser] = {}
        root.mkdir(parents=True, exist_ok=True)
        self._resolv.write_text(resolv.render(resolv.host_resolv_conf(), METADATA))

    def build(
        self,
        revision: Revision,
        image: ReadyImage,
        network: Network,
        instance: str,
        group: str,
        mounts: Sequence[Mount],
        fence: Fence,
        volumes: Sequence[tuple[str, str]] = (),
    ) -> dict[str, Any]:
        """The spec; its files are written. Raises BadSpec, BadUser, NotAllowed, OSError."""
        user = self._user(revision.user or image.config.user, image.chain_id, mounts[0])
        profiles.admit(fence, user)
        directory = self._root / instance
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "hosts").write_text(resolv.hosts(instance, network.address))
        return ocispec.build(
            revision,
            image.config,
            network,
            instance,
            files=Files(str(self._resolv), str(directory / "hosts"), volumes),
            user=user,
            cgroup=self._places.of(instance),
            shim_group=group,
            host=self.host,
            fence=fence,
        )

    def _user(self, text: str, chain_id: str, mount: Mount) -> ResolvedUser:
        known = self._users.get((text, chain_id))
        if known is None:
            view = RootfsView(layers_of(mount.type, mount.source, mount.options))
            known = resolve(text, view.read("etc/passwd"), view.read("etc/group"))
            if len(self._users) >= 4096:
                self._users.clear()
            self._users[(text, chain_id)] = known
        return known


def host_facts() -> HostFacts:
    """What this machine is. A runtime can grant no more open files than we have: containerd is started beside us."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    swap = cgroups.swap_limit(cgroups.detect())
    return HostFacts(machine=os.uname().machine, nofile_hard=hard, swap_limit=swap, cpu_m=(os.cpu_count() or 1) * 1000)
