"""Where one machine serves, a replica's port for other replicas listens on that machine alone.

Ray binds its own ports to the node's address, and 127.0.0.1 is that address under serve/one_machine.env. One port does
not follow: each replica of Serve opens `[::]:0` for calls by gRPC, which wants the cluster's token but is open to the
network. Ray 2.60 has no setting for it. So the function that opens the port is wrapped, in the replica's own process.
"""

from __future__ import annotations

from typing import Any

import ray
from ray._common.network_utils import is_localhost
from ray._common.tls_utils import add_port_to_grpc_server
from ray.serve._private import replica


def listen_locally() -> None:
    """For the constructor of a deployment, which runs before the port is opened. On a cluster it changes nothing."""
    if is_localhost(ray.util.get_node_ip_address()):
        replica.add_port_to_grpc_server = _add_local_port


def _add_local_port(server: Any, address: str) -> int:
    port: int = add_port_to_grpc_server(server, address.replace("[::]:", "127.0.0.1:"))
    return port
