"""The one nftables table of the engine: what instances may reach. Rules go by the prefix of a link's name, so no instance has one.

The kernel is spoken to through libnftables (ctypes), never by starting `nft`. Everything blocks: it runs in the pool's thread.

instance → the host itself, another instance, link-local addresses (cloud metadata)   dropped
instance → anywhere else                                                              masqueraded
the host → instance                                                                   allowed, with its answers
others → instance                                                                     dropped, but for answers
"""

import ctypes
import ipaddress
from collections.abc import Sequence

from nodeagent.network.errors import NetworkError

DENIED = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
"""Where no instance may send: this network, loopback, link-local with the clouds' metadata service, multicast, reserved."""

_LIBRARY = "libnftables.so.1"


def table_name(prefix: str) -> str:
    """The table of the engine with this id."""
    return f"ebb_{prefix}"


def ruleset(prefix: str, subnet: str, links: str, resolvers: Sequence[str], denied: Sequence[str] = DENIED) -> str:
    """The table as nft text, replacing an older one in one transaction.

    `links` is the beginning of the names of instances' links. `resolvers` are name servers that instances are told of: they
    may be asked even where they are on the host itself.
    """
    table = f"table inet {table_name(prefix)}"
    servers = [address for address in resolvers if ipaddress.ip_address(address).version == 4]
    known = f"elements = {{ {', '.join(dict.fromkeys(servers))} }}" if servers else ""
    own = f'"{links}*"'
    return f"""
{table} {{ }}
delete {table}
{table} {{
  set resolvers {{ type ipv4_addr; {known} }}
  set denied {{ type ipv4_addr; flags interval; auto-merge; elements = {{ {", ".join(denied)} }} }}
  chain arriving {{
    type filter hook prerouting priority raw; policy accept;
    iifname != {own} accept
    meta nfproto != ipv4 drop
    ip saddr != {subnet} drop
  }}
  chain to_host {{
    type filter hook input priority filter - 1; policy accept;
    iifname != {own} accept
    ct state established,related accept
    ip daddr @resolvers meta l4proto {{ tcp, udp }} th dport 53 accept
    drop
  }}
  chain through {{
    type filter hook forward priority filter - 1; policy accept;
    iifname {own} oifname {own} drop
    oifname {own} ct state established,related accept
    oifname {own} drop
    iifname != {own} accept
    ip daddr @resolvers meta l4proto {{ tcp, udp }} th dport 53 accept
    ip daddr @denied drop
  }}
  chain leaving {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname != {{ {own}, "lo" }} masquerade
  }}
}}
"""


def apply(commands: str) -> None:
    """Run nft commands in one transaction. Raises NetworkError with the library's words."""
    library = _load()
    context = library.nft_ctx_new(0)
    if not context:
        raise NetworkError("libnftables gives no context; is the nf_tables kernel module there?")
    try:
        library.nft_ctx_buffer_error(context)
        if library.nft_run_cmd_from_buffer(context, commands.encode()) != 0:
            words = library.nft_ctx_get_error_buffer(context) or b""
            raise NetworkError(f"nftables refused the engine's table: {words.decode(errors='replace').strip()}")
    finally:
        library.nft_ctx_free(context)


def install(prefix: str, subnet: str, links: str, resolvers: Sequence[str], denied: Sequence[str] = DENIED) -> None:
    """Put the table in force, instead of one that is there. Raises NetworkError."""
    apply(ruleset(prefix, subnet, links, resolvers, denied))


def remove(prefix: str) -> None:
    """Take the table away; one that is not there is fine. Raises NetworkError."""
    table = f"table inet {table_name(prefix)}"
    apply(f"{table} {{ }}\ndelete {table}\n")


def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise NetworkError(f"{_LIBRARY} cannot be loaded ({error}); install the package libnftables1") from None
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_free.argtypes = [ctypes.c_void_p]
    library.nft_ctx_buffer_error.argtypes = [ctypes.c_void_p]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.nft_ctx_get_error_buffer.argtypes = [ctypes.c_void_p]
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    return library
