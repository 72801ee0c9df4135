"""What `ebb up` was told, and what follows from it: paths, ports, names. Pure."""

import ipaddress
import os
import platform
import re
from pathlib import Path

import msgspec

PORTS = (
    "api",
    "etcd",
    "etcd_peer",
    "nats",
    "registry_admin",
    "autoscaler_admin",
    "nodeagent_admin",
    "gate",
    "gate_admin",
    "etcd_health",
    "inner",
    "ingress_admin",
)
WORKERS_MOST = 64
IDENTITY_LIFE_LEAST_S = 6.0
USERS = ("etcd", "nats", "gate", "registry", "autoscaler", "ingress")
"""Roles that run as users of their own, in the order of their ids. The node agent and containerd are root."""
INSTANCES_FIRST, INSTANCES_END = 0x70000000, 0x7FFD0000
"""The ids that the node agent gives to projects (nodeagent/uids.py); ours come right behind."""
SOCKET_PATH_MOST = 104
"""Bytes of a Unix socket's path, as containerd counts."""


class BadUsage(Exception):
    """A flag's value cannot be used; the message says which, the value, and what is allowed."""


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """One all-in-one engine. Two engines on one machine differ in root, run, http, https, port_base, id and subnet."""

    root: str = "/var/lib/ebb"
    run: str = "/run/ebb"
    http: str = "0.0.0.0:8080"
    https: str = "0.0.0.0:8443"
    """`off`: TLS is not spoken."""
    listen_api: str = ""
    """host:port of the API, always with TLS; empty: `port_base` of loopback."""
    oidc_file: str = ""
    """Issuers whose tokens the API accepts (registry/oidc.py)."""
    acme_email: str = ""
    """Not empty: hosts of the world's get certificates by ACME, and the authority's terms are agreed to."""
    acme_directory: str = "https://acme-v02.api.letsencrypt.org/directory"
    acme_ca_file: str = ""
    port_base: int = 8090
    id: str = "ebb"
    subnet: str = "10.231.0.0/16"
    domain: str = "localhost"
    park: bool = True
    parked_most: int = 0
    project_processors: int = 0
    pressure_file: str = ""
    insecure_registries: str = ""
    allow_private_registries: str = ""
    log_level: str = "info"
    identity_life_s: float = 86_400
    """How long a certificate of a process lasts; renewed when a third of it is left."""
    first_uid: int = INSTANCES_END
    """The id of the first of USERS, and of its group; the others follow. 0: all run as root."""
    workers: int = 0
    """Processes of the front door; 0: `worker_count`."""

    @property
    def worker_count(self) -> int:
        """One, and one more for each two cores beyond the second: what is idle costs little, and the apps want cores too."""
        return self.workers or max(1, (os.cpu_count() or 1) // 2)

    @property
    def machine(self) -> str:
        """What this machine's processes are called in their certificates, and its node."""
        return re.sub(r"[^A-Za-z0-9.-]", "-", platform.node()).strip("-.") or "node"

    def uid(self, role: str) -> int:
        """The user, and group, of this engine's processes of `role`."""
        return self.first_uid + USERS.index(role) if self.first_uid and role in USERS else 0

    @property
    def sealers(self) -> int:
        """The group that reads the keys of certificates: the registry's and the front door's."""
        return self.first_uid + len(USERS) if self.first_uid else 0

    def given(self, name: str) -> Path:
        """A copy, for who runs as another user, of a file that was named on the command line."""
        return Path(self.root) / "given" / name

    @property
    def peers(self) -> Path:
        """Where the front door's workers find each other."""
        return Path(self.run) / "peers"

    @property
    def nats_config(self) -> Path:
        return Path(self.root) / "nats" / "nats.conf"

    def identity(self, role: str) -> Path:
        """Where the certificate of this machine's processes of `role` is."""
        return Path(self.root) / "identity" / role

    @property
    def ports(self) -> int:
        """How many from `port_base` are used: PORTS, one for each further worker, and one for a worker that takes over."""
        return len(PORTS) + self.worker_count

    def door_port(self, number: int) -> int:
        """The admin port of a worker, counted from 0."""
        return self.port("ingress_admin") + number

    def port(self, name: str) -> int:
        """The port of one of PORTS."""
        return self.port_base + PORTS.index(name)

    @property
    def http_port(self) -> int:
        return int(self.http.rpartition(":")[2])

    @property
    def https_port(self) -> int:
        """0: TLS is off."""
        return 0 if self.https == "off" else int(self.https.rpartition(":")[2])

    @property
    def api_address(self) -> str:
        """host:port where the API listens."""
        return self.listen_api or f"127.0.0.1:{self.port('api')}"

    @property
    def api(self) -> str:
        """The API's URL, as this machine reaches it."""
        host, _, port = self.api_address.rpartition(":")
        return f"https://{'127.0.0.1' if host in ('0.0.0.0', '[::]') else host}:{port}"

    @property
    def state_file(self) -> Path:
        return Path(self.run) / "state.json"

    @property
    def containerd_socket(self) -> Path:
        return Path(self.run) / "containerd" / "containerd.sock"

    @property
    def kubeconfig(self) -> Path:
        return Path(self.root) / "kubeconfig"

    @property
    def admin_token(self) -> Path:
        """The first admin's token: 0600, so that root of this machine is logged in."""
        return Path(self.root) / "admin.token"

    @property
    def secret_keys(self) -> Path:
        """The keys that Secrets are sealed with: 0600, and in no backup of etcd."""
        return Path(self.root) / "keys" / "secrets.key"

    @property
    def certificate_keys(self) -> Path:
        """The keys that private keys of certificates are sealed with; the front door has these and not those of Secrets."""
        return Path(self.root) / "keys" / "certificates.key"

    @property
    def identity_keys(self) -> Path:
        """The keys that the keys of identity tokens are sealed with: the registry's alone."""
        return Path(self.root) / "keys" / "identity.key"

    @property
    def inner(self) -> str:
        """Where the front door listens for instances: at the address that they know as the gateway's."""
        return f"{next(ipaddress.IPv4Network(self.subnet).hosts())}:{self.port('inner')}"

    @property
    def local_ca(self) -> Path:
        """The certificate of this engine's own authority, for clients to trust."""
        return Path(self.root) / "ca.crt"

    @property
    def local_ca_key(self) -> Path:
        return Path(self.root) / "keys" / "ca.key"

    @property
    def logs(self) -> Path:
        return Path(self.root) / "logs"

    def url(self, host: str) -> str:
        """The address a browser would use for `host`."""
        return f"http://{host}" + ("" if self.http_port == 80 else f":{self.http_port}")

    def secure_url(self, host: str) -> str:
        """The same with TLS."""
        return f"https://{host}" + ("" if self.https_port == 443 else f":{self.https_port}")


def check(engine: Engine) -> None:
    """Raises BadUsage, naming every flag that is wrong at once."""
    wrong = []
    for flag, path in (("--root", engine.root), ("--run", engine.run)):
        if not path.startswith("/") or path == "/":
            wrong.append(f"{flag} {path}: want an absolute path of a directory of Ebb's own, such as /var/lib/ebb")
    too_long = len(f"{engine.containerd_socket}.ttrpc") - SOCKET_PATH_MOST
    if too_long > 0:
        most = len(engine.run) - too_long
        wrong.append(f"--run {engine.run}: {len(engine.run)} characters; at most {most}, for the sockets in it")
    if engine.identity_life_s < IDENTITY_LIFE_LEAST_S:
        wrong.append(f"--identity-life-s {engine.identity_life_s:g}: want at least {IDENTITY_LIFE_LEAST_S:g}")
    if not 0 <= engine.workers <= WORKERS_MOST:
        wrong.append(f"--workers {engine.workers}: want 1–{WORKERS_MOST}, or 0 for as many as fit the machine's cores")
    below, most = INSTANCES_FIRST - len(USERS) - 1, 2**31 - len(USERS) - 2
    if not (0 <= engine.first_uid <= below or INSTANCES_END <= engine.first_uid <= most):
        wrong.append(
            f"--first-uid {engine.first_uid}: want 1–{below} or {INSTANCES_END}–{most}, for {len(USERS) + 1} ids from it on; "
            f"those between are instances'; or 0, and all run as root"
        )
    if not 1024 <= engine.port_base <= 65535 - engine.ports:
        wrong.append(f"--port-base {engine.port_base}: want 1024–{65535 - engine.ports}; {engine.ports} ports from it are used")
    wrong += _listening(engine, "--http", engine.http, "address:port, such as 0.0.0.0:8080")
    if engine.https != "off":
        wrong += _listening(engine, "--https", engine.https, "address:port, such as 0.0.0.0:8443, or off")
        if engine.https.rpartition(":")[2] == engine.http.rpartition(":")[2]:
            wrong.append(f"--https {engine.https}: the port is --http's")
    if engine.listen_api:
        free = msgspec.structs.replace(engine, port_base=engine.port_base + 1)
        wrong += _listening(free, "--api", engine.listen_api, "address:port, such as 0.0.0.0:8090")
    if engine.acme_email and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", engine.acme_email):
        wrong.append(f"--acme-email {engine.acme_email}: want an address such as me@example.org")
    if engine.acme_email and engine.https == "off":
        wrong.append("--acme-email: there is no use for certificates with --https off")
    if not engine.acme_directory.startswith("https://"):
        wrong.append(f"--acme-directory {engine.acme_directory}: want the https:// URL of an ACME directory")
    if not re.fullmatch(r"[a-z][a-z0-9]{0,5}", engine.id):
        wrong.append(f"--id {engine.id}: want 1–6 of a–z, 0–9, a letter first")
    if engine.parked_most < 0:
        wrong.append(f"--parked-most {engine.parked_most}: want a number of instances, or 0 for as many as memory allows")
    if engine.project_processors < 0:
        wrong.append(f"--project-processors {engine.project_processors}: want a number of processors, or 0 for all")
    try:
        if ipaddress.IPv4Network(engine.subnet).prefixlen > 24:
            wrong.append(f"--subnet {engine.subnet}: want /24 or larger, one address an instance")
    except ValueError as error:
        wrong.append(f"--subnet {engine.subnet}: {error}; want a network such as 10.231.0.0/16")
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", engine.domain):
        wrong.append(f"--domain {engine.domain}: want a DNS name in lower case, such as localhost or apps.example.org")
    if wrong:
        raise BadUsage("\n".join(wrong))


def _listening(engine: Engine, flag: str, address: str, want: str) -> list[str]:
    """What is wrong with `address`, where the front door shall listen."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        return [f"{flag} {address}: want {want}"]
    last = engine.port_base + engine.ports - 1
    if engine.port_base <= int(port) <= last:
        return [f"{flag} {address}: port {port} is one of --port-base's {engine.port_base}–{last}"]
    return []
