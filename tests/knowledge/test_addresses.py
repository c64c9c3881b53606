import ipaddress

import pytest

from comem_ray.knowledge.addresses import is_public, resolve_addresses


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::808:808", True),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("240.0.0.1", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_public_addresses(address, public):
    assert is_public(ipaddress.ip_address(address)) is public


def test_resolving_tells_what_is_known_from_what_is_allowed():
    assert resolve_addresses("127.0.0.1", 80, allow_private=True) == ["127.0.0.1"]
    assert resolve_addresses("127.0.0.1", 80, allow_private=False) == []
    with pytest.raises(OSError, match=r"nowhere\.invalid"):
        resolve_addresses("nowhere.invalid", 80, allow_private=True)
    with pytest.raises(OSError, match="not a host name"):
        resolve_addresses("a" * 70 + ".org", 80, allow_private=True)
