"""The LoRA of a release: scale, padding and what is reported of each Linear."""

import torch
from support.release import write_release

from comem_ray.model.released.recovery import recover_lora, zero_matrices
from comem_ray.model.released.release import open_release


def test_matrices_give_the_difference_at_the_scale_of_the_paper(backbones, tmp_path):
    base = backbones["qwen2_5_vl"]
    write_release(tmp_path, base, torch.float32)
    release = open_release(tmp_path, base)
    done = []
    lora = recover_lora(release, release.encoder, None, lambda: done.append(1))
    assert len(done) == len(release.linears) == len(lora.matrices)
    assert (lora.rank, lora.alpha) == (16, 32)
    for module, (a, b) in lora.matrices.items():
        difference = release.encoder[f"{module}.weight"].read() - release.base[f"{module}.weight"].read()
        torch.testing.assert_close(lora.alpha / lora.rank * b @ a, difference, rtol=0, atol=1e-5)
    report = lora.linears["model.language_model.layers.0.mlp.up_proj"]
    assert (report.shape, report.dtype, report.changed, report.rank) == ((96, 64), "float32", True, 16)
    assert report.residual < 1e-5 * report.norm


def test_a_rank_that_is_asked_for_is_kept_everywhere(backbones, tmp_path):
    base = backbones["qwen2_vl"]
    write_release(tmp_path, base)
    release = open_release(tmp_path, base)
    for rank in (4, 40):  # 40 is more than the vision tower's width of 32: rows of 0 are added
        lora = recover_lora(release, release.encoder, rank, lambda: None)
        assert (
            {a.shape[0] for a, _ in lora.matrices.values()} == {b.shape[1] for _, b in lora.matrices.values()} == {rank}
        )
    zero = dict(zero_matrices(release, 16))
    assert {name: (a.shape, b.shape) for name, (a, b) in zero.items()}.keys() == lora.matrices.keys()
