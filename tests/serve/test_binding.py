"""The service listens beyond this machine only with keys."""

from __future__ import annotations

import pytest

from comem_ray.config import ApiConfig, ConfigError
from serve.binding import refuse_public_bind
from serve.http.keys import Keys, load_keys

KEYS = load_keys(ApiConfig(), {"COMEM_API_KEYS": "0123456789abcdef"})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.7", "localhost", "::1"])
def test_loopback_needs_no_keys(host: str) -> None:
    refuse_public_bind(host, Keys({}))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "10.0.0.1", "no-such-host.invalid"])
def test_another_address_needs_keys(host: str) -> None:
    with pytest.raises(ConfigError, match=r"no API keys are set: set api.keys_file"):
        refuse_public_bind(host, Keys({}))
    refuse_public_bind(host, KEYS)
