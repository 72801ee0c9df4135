"""gRPC channels to etcd, or to its gate."""

import ipaddress
import socket

import grpc
import grpc.aio

from process.identity import STORE, Identity, Material
from store.errors import StoreError

_OPTIONS = (
    # gRPC's own maximum between attempts is 120 s: too long for a server that comes back after one.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 500),
    # etcd ends a connection that pings more often than every 5 s.
    ("grpc.keepalive_time_ms", 6_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


def open_channel(etcd: str, identity: Identity | None) -> grpc.aio.Channel:
    """A channel to `etcd` (comma-separated host:port), with TLS when there is an identity. Raises BadIdentity, StoreError."""
    if identity is None:
        return grpc.aio.insecure_channel(target(etcd), options=_OPTIONS)
    # Who listens there is told by his certificate, not by his address.
    options = (*_OPTIONS, ("grpc.ssl_target_name_override", STORE))
    return grpc.aio.secure_channel(target(etcd), credentials(identity.material()), options=options)


def credentials(own: Material) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(own.authority, own.key, own.certificate)


def target(etcd: str) -> str:
    """gRPC's name for a comma-separated list of host:port. Raises StoreError when a name of several cannot be resolved."""
    hosts = [part.strip() for part in etcd.split(",") if part.strip()]
    if len(hosts) == 1:
        return hosts[0]
    addresses = [_address(host) for host in hosts]
    family = "ipv6" if any(":" in address.rpartition(":")[0] for address in addresses) else "ipv4"
    return f"{family}:{','.join(addresses)}"


def _address(host_port: str) -> str:
    host, _, port = host_port.rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        try:
            return f"{socket.gethostbyname(host)}:{port}"
        except OSError as error:
            raise StoreError(f"etcd {host_port}: {error}; want host:port,host:port") from None
    return host_port
