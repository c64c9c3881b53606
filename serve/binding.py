"""On which address the service listens: to other machines only where API keys say who may call."""

from __future__ import annotations

import ipaddress
import socket

from ray.serve.context import _get_global_client

from comem_ray.config import ConfigError
from serve.http.keys import VARIABLE, Keys


def bound_host() -> str:
    """The address that Serve's HTTP proxies listen on. Works in a driver and inside `build_app`."""
    client = _get_global_client()
    assert client is not None
    return str(client.http_config.host)


def refuse_public_bind(host: str, keys: Keys) -> None:
    """Raises ConfigError where other machines can call and nobody asks for a key."""
    if not keys and not _is_loopback(host):
        raise ConfigError(
            f"the service would listen on {host}, for other machines too, and no API keys are set: set api.keys_file "
            f"or {VARIABLE}, or http_options.host: 127.0.0.1 in the Serve file"
        )


def _is_loopback(host: str) -> bool:
    """Whether all addresses of `host` are this machine's own. An empty host is every address."""
    if not host:
        return False
    try:
        addresses = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in addresses)
