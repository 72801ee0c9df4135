"""The network of instances: a pool of ready network namespaces, each with a point-to-point veth and a /32 route.

No bridge, no helper programs, no rule per instance. `addresses` is pure; `links` and `rtnetlink` speak to the kernel and
block, so `pool` calls them in a thread of its own.
"""

from nodeagent.network.addresses import Addresses, BadSubnet, NoAddress
from nodeagent.network.errors import NetworkError
from nodeagent.network.pool import Network, NetworkPool

__all__ = ["Addresses", "BadSubnet", "Network", "NetworkError", "NetworkPool", "NoAddress"]
