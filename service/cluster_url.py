"""Reads the address of a Redis Cluster: redis-cluster://user:password@a:6379,b:6379,c, with TLS rediss-cluster://."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

SCHEMES = {"redis-cluster": "redis", "rediss-cluster": "rediss"}
EXAMPLE = "redis-cluster://:password@a:6379,b:6379,c:6379"
PORT = 6379
NODES_MAX = 100
Node = tuple[str, int]


@dataclass(frozen=True, slots=True)
class ClusterUrl:
    """The nodes that are asked first which nodes there are; credentials and options are the same for all."""

    scheme: str
    credentials: str
    nodes: tuple[Node, ...]
    query: str

    def of(self, node: Node) -> str:
        """Return the URL of one node."""
        host = f"[{node[0]}]" if ":" in node[0] else node[0]
        return f"{self.scheme}://{self.credentials}{host}:{node[1]}/0{self.query}"

    @property
    def secure(self) -> bool:
        return self.scheme == "rediss"


def is_cluster(url: str) -> bool:
    """Return whether `url` names a cluster."""
    return url.partition("://")[0].lower() in SCHEMES


def parse_cluster_url(url: str) -> ClusterUrl:
    """Take a cluster's URL apart.  Raises: ValueError, which says what to write."""
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in SCHEMES:
        raise ValueError(f"is no cluster; write it like {EXAMPLE}")
    rest, mark, query = rest.partition("?")
    network, _, path = rest.partition("/")
    credentials, at, hosts = network.rpartition("@")
    if "://" in rest:
        raise ValueError(f"names the scheme more than once: the nodes are separated by commas alone, like {EXAMPLE}")
    if path not in ("", "0"):
        raise ValueError("names a database: a Redis Cluster has only number 0; leave the path out")
    names = hosts.split(",")
    if not all(name.strip() for name in names) or len(names) > NODES_MAX:
        raise ValueError(f"names no node, or an empty one; write it like {EXAMPLE}")
    nodes = tuple(_node(name.strip()) for name in names)
    return ClusterUrl(SCHEMES[scheme.lower()], credentials + at, nodes, mark + query)


def _node(name: str) -> Node:
    if "@" in name or " " in name:
        raise ValueError(f"has a user more than once: all nodes take the same one, like {EXAMPLE}")
    try:
        parts = urlsplit(f"redis://{name}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"has a node {name[:60]!r} whose port is no number from 1 to 65535") from None
    if not host or port == 0:
        raise ValueError(f"has a node {name[:60]!r} that cannot be reached; write it like {EXAMPLE}")
    return host, PORT if port is None else port
