"""The links of an instance: what is asked of the kernel to make a namespace, its veth and its routes.

    instance's namespace                      host
    lo                                        <id>-gw0: gateway/32 (so that the host always speaks as the gateway)
    eth0: address/32 ─────── veth pair ─────── <id>-<n>: no address; route address/32, source gateway
    default via gateway

Both ends know each other's hardware address for good, so no ARP is spoken and none can be forged; IPv6 is off. Deleting the
namespace takes the veth and with it the route along. All functions block: they run in the pool's thread.
"""

import ctypes
import os
import socket
import struct
from pathlib import Path

from nodeagent.network import rtnetlink as nl

CLONE_NEWNET = 0x40000000
GATEWAY_MAC = bytes((0x02, 0xEB, 0xB0, 0, 0, 1))

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_AF_SPEC, _IFLA_NET_NS_FD = 1, 3, 4, 18, 26, 28
_IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES = 31, 32
_INFO_KIND, _INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFLA_INET_CONF, _CONF_RP_FILTER, _CONF_SEND_REDIRECTS = 1, 8, 6
_IFLA_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE = 8, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_TABLE = 1, 4, 5, 7, 15
_NDA_DST, _NDA_LLADDR = 1, 2
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_ONLINK = 4
_NEW = nl.CREATE | nl.EXCL

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot {what}: {os.strerror(code)}")


def open_own_namespace() -> int:
    """A descriptor of the calling thread's network namespace."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def enter(namespace: int) -> None:
    """Move the calling thread into a network namespace."""
    _check(_libc.setns(namespace, CLONE_NEWNET), "enter a network namespace")


def make_namespace(host: nl.Netlink, home: int, name: str, address: str, gateway: str, mtu: int) -> tuple[int, int]:
    """Make a namespace with its link up and routed; returns its descriptor and the host end's index.

    `home` is the thread's own namespace, to which it comes back whatever happens. Raises OSError; then nothing is left.
    """
    _check(_libc.unshare(CLONE_NEWNET), "make a network namespace")
    namespace = -1
    try:
        namespace = open_own_namespace()
        for which in ("all", "default"):
            _write_if_present(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6", b"1")
        # Root of an instance has no rights over this namespace, and may listen on any port of it all the same.
        _write_if_present("/proc/sys/net/ipv4/ip_unprivileged_port_start", b"0")
        host.apply([_new_veth(name, namespace, address, mtu)])
        with nl.Netlink() as inner:
            _furnish(inner, address, gateway)
        index = host.index(name)
        if index is None:
            raise OSError(f"link {name} vanished while it was made")
        host.apply(_host_end(index, name, address, gateway))
    except BaseException:
        if namespace >= 0:
            os.close(namespace)
        raise
    finally:
        enter(home)
    return namespace, index


def make_gateway(host: nl.Netlink, name: str, gateway: str) -> None:
    """Give the host the gateway's address, on a link that is only there to hold it and that outlives the agent."""
    index = host.index(name)
    if index is None:
        peer = nl.attribute(_VETH_INFO_PEER, nl.link() + nl.text(_IFLA_IFNAME, gateway_peer(name)))
        info = nl.text(_INFO_KIND, "veth") + nl.attribute(_INFO_DATA, peer)
        create = (nl.link(), nl.text(_IFLA_IFNAME, name), nl.attribute(_IFLA_LINKINFO, info))
        host.apply([nl.Request(f"make link {name}", nl.NEWLINK, _NEW, *create)])
        index = host.index(name)
    if index is None:
        raise OSError(f"link {name} vanished while it was made")
    packed = socket.inet_aton(gateway)
    host.apply(
        [
            nl.Request(f"bring {name} up", nl.SETLINK, 0, nl.link(index, nl.UP, nl.UP)),
            nl.Request(
                f"give {gateway} to {name}",
                nl.NEWADDR,
                nl.CREATE | nl.REPLACE,
                nl.address(index, 32),
                nl.attribute(_IFA_LOCAL, packed),
                nl.attribute(_IFA_ADDRESS, packed),
            ),
        ]
    )


def gateway_peer(name: str) -> str:
    """The unused other end of the gateway's link `<id>-gw0`."""
    return name[:-1] + "1"


def delete_link(host: nl.Netlink, name: str) -> None:
    """Delete a link, and its other end with it; one that is gone already is fine."""
    index = host.index(name)
    if index is not None:
        try:
            host.apply([nl.Request(f"delete link {name}", nl.DELLINK, 0, nl.link(index))])
        except nl.NetlinkError:
            if host.index(name) is not None:
                raise


def link_names(host: nl.Netlink) -> dict[int, str]:
    """Every interface, index → name."""
    found = host.dump(nl.GETLINK, nl.link())
    return {struct.unpack_from("=i", head, 4)[0]: attrs[_IFLA_IFNAME].rstrip(b"\0").decode() for head, attrs in found}


def routes(host: nl.Netlink) -> list[tuple[str, str]]:
    """IPv4 routes of the main table, as (destination/prefix, interface)."""
    names = link_names(host)
    found = []
    for head, attrs in host.dump(nl.GETROUTE, struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
        table = struct.unpack("=I", attrs[_RTA_TABLE])[0] if _RTA_TABLE in attrs else head[4]
        if table != 254 or head[0] != socket.AF_INET:
            continue
        destination = socket.inet_ntoa(attrs[_RTA_DST]) if _RTA_DST in attrs else "0.0.0.0"
        index = struct.unpack("=I", attrs[_RTA_OIF])[0] if _RTA_OIF in attrs else 0
        found.append((f"{destination}/{head[1]}", names.get(index, "?")))
    return found


def default_mtu(host: nl.Netlink) -> int:
    """The MTU of the interface that the default route leaves by, so that instances send nothing too big for it; else 1500."""
    by_name = {
        attrs[_IFLA_IFNAME].rstrip(b"\0").decode(): struct.unpack("=I", attrs[_IFLA_MTU])[0]
        for _, attrs in host.dump(nl.GETLINK, nl.link())
        if _IFLA_MTU in attrs
    }
    return next((by_name.get(name, 1500) for destination, name in routes(host) if destination == "0.0.0.0/0"), 1500)


def _new_veth(name: str, namespace: int, address: str, mtu: int) -> nl.Request:
    common = nl.number(_IFLA_MTU, mtu) + nl.number(_IFLA_NUM_TX_QUEUES, 1) + nl.number(_IFLA_NUM_RX_QUEUES, 1)
    peer = (
        nl.link()
        + nl.text(_IFLA_IFNAME, "eth0")
        + nl.number(_IFLA_NET_NS_FD, namespace)
        + nl.attribute(_IFLA_ADDRESS, _mac(address))
        + common
    )
    info = nl.text(_INFO_KIND, "veth") + nl.attribute(_INFO_DATA, nl.attribute(_VETH_INFO_PEER, peer))
    own = nl.text(_IFLA_IFNAME, name) + nl.attribute(_IFLA_ADDRESS, GATEWAY_MAC) + common
    return nl.Request(f"make link {name}", nl.NEWLINK, _NEW, nl.link(), own, nl.attribute(_IFLA_LINKINFO, info))


def _furnish(inner: nl.Netlink, address: str, gateway: str) -> None:
    index = inner.index("eth0")
    if index is None:
        raise OSError("eth0 is not in the new namespace")
    packed, via = socket.inet_aton(address), socket.inet_aton(gateway)
    inner.apply(
        [
            nl.Request("bring lo up", nl.SETLINK, 0, nl.link(1, nl.UP, nl.UP)),
            nl.Request("bring eth0 up", nl.SETLINK, 0, nl.link(index, nl.UP, nl.UP)),
            nl.Request(
                f"give {address} to eth0",
                nl.NEWADDR,
                _NEW,
                nl.address(index, 32),
                nl.attribute(_IFA_LOCAL, packed),
                nl.attribute(_IFA_ADDRESS, packed),
            ),
            nl.Request("know the gateway", nl.NEWNEIGH, _NEW, nl.neighbour(index), _lladdr(gateway, GATEWAY_MAC)),
            nl.Request(
                "set the default route",
                nl.NEWROUTE,
                _NEW,
                nl.route(0, _SCOPE_UNIVERSE, _ONLINK),
                nl.attribute(_RTA_GATEWAY, via),
                nl.number(_RTA_OIF, index),
            ),
        ]
    )


def _host_end(index: int, name: str, address: str, gateway: str) -> list[nl.Request]:
    # Reverse-path filtering, strict: what comes in here with any other source than `address` is dropped.
    conf = nl.number(_CONF_RP_FILTER, 1) + nl.number(_CONF_SEND_REDIRECTS, 0)
    inet = nl.attribute(socket.AF_INET, nl.attribute(_IFLA_INET_CONF, conf))
    inet6 = nl.attribute(socket.AF_INET6, nl.attribute(_IFLA_INET6_ADDR_GEN_MODE, bytes((_ADDR_GEN_NONE,))))
    rules = [nl.Request(f"set IPv4 rules of {name}", nl.SETLINK, 0, nl.link(index), nl.attribute(_IFLA_AF_SPEC, inet))]
    if Path("/proc/sys/net/ipv6").exists():
        rules.append(nl.Request(f"silence IPv6 on {name}", nl.SETLINK, 0, nl.link(index), nl.attribute(_IFLA_AF_SPEC, inet6)))
    return [
        *rules,
        nl.Request(f"bring {name} up", nl.SETLINK, 0, nl.link(index, nl.UP, nl.UP)),
        nl.Request(f"know {address}", nl.NEWNEIGH, _NEW, nl.neighbour(index), _lladdr(address, _mac(address))),
        nl.Request(
            f"route {address} to {name}",
            nl.NEWROUTE,
            nl.CREATE | nl.REPLACE,
            nl.route(32, _SCOPE_LINK),
            nl.attribute(_RTA_DST, socket.inet_aton(address)),
            nl.attribute(_RTA_PREFSRC, socket.inet_aton(gateway)),
            nl.number(_RTA_OIF, index),
        ),
    ]


def _mac(address: str) -> bytes:
    return b"\x02\xeb" + socket.inet_aton(address)


def _lladdr(address: str, mac: bytes) -> bytes:
    return nl.attribute(_NDA_DST, socket.inet_aton(address)) + nl.attribute(_NDA_LLADDR, mac)


def _write_if_present(path: str, value: bytes) -> None:
    try:
        Path(path).write_bytes(value)
    except FileNotFoundError:  # a kernel without IPv6
        pass
