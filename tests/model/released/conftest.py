"""A release that the tests of this folder change or damage."""

import pytest
from support.release import write_release


@pytest.fixture(scope="module")
def release(backbones, tmp_path_factory):
    """Its folder, and its tensors."""
    folder = tmp_path_factory.mktemp("release")
    return folder, write_release(folder, backbones["qwen2_5_vl"])
