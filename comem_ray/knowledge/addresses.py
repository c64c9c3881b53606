"""Network addresses: which ones a host has, and which of them are on the public internet.

Makes no connection.
"""

from __future__ import annotations

import ipaddress
import socket

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # IPv4 as networks without it see it


def resolve_addresses(host: str, port: int, allow_private: bool) -> list[str]:
    """The addresses of `host` in the resolver's order: only the public ones, unless `allow_private`.

    Raises OSError if the host is not known.
    """
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(f"{host!r} is not a host name") from error
    except OSError as error:
        raise OSError(f"{host!r} is not known: {error.strerror}") from error
    addresses = dict.fromkeys(str(entry[4][0]) for entry in entries)
    return [a for a in addresses if allow_private or is_public(ipaddress.ip_address(a))]


def is_public(address: IPAddress) -> bool:
    """Whether an address is on the public internet. An IPv4 address inside an IPv6 one must be public too."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else address.ipv4_mapped
        if inner is not None:
            return is_public(inner)
        if any(carried and not is_public(carried) for carried in (address.sixtofour, *(address.teredo or ()))):
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved
