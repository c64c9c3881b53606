"""An imported adapter with a second LoRA, and its configuration."""

import pytest
import torch
from support.release import imported, write_release


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen2_vl"])
def adapter(request, backbones, tmp_path_factory):
    """Its folder, its base, and the configuration that was written with it."""
    folder, base = tmp_path_factory.mktemp("export"), backbones[request.param]
    write_release(folder / "release", base, torch.float32, model_inf="different")
    _, config = imported(folder / "release", base, folder / "adapter")
    return folder / "adapter", base, config.model_copy(update={"root": str(folder / "run")})
