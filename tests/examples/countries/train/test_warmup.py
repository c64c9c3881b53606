"""Stage warmup: a stopped run resumes, it can start from an adapter, and its own adapter loads."""

import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.training_run import load_backbones

from comem_ray.model.adapter import attach_adapter
from comem_ray.model.checkpoint import checkpoint_fingerprint
from comem_ray.model.memory_encoder import MemoryEncoder
from examples.countries.backbone import BASE_LORA, TOWER
from examples.countries.train.country_samples import CountrySampler
from examples.countries.train.image_cache import view_image
from examples.countries.train.stages import Run
from examples.countries.train.tower import tower_maps
from examples.countries.train.warmup import ADAPTER, warm_up


def test_warmup_stopped_and_resumed_equals_uninterrupted(finished: Run, fork: Run) -> None:
    fingerprint = checkpoint_fingerprint(fork.merged())
    assert fingerprint == checkpoint_fingerprint(finished.merged())
    for stop, workers in ((2, 0), (None, 2)):
        _, cached, book = load_backbones(fork, TOWER, BASE_LORA)
        sizes = fork.sizes.warmup
        warm_up(cached, fork.sampler(cached), book, fork.config(), fork.out, sizes, fingerprint, stop, workers)
    for name in ("qformer.safetensors", "lora/adapter_model.safetensors"):
        whole, resumed = (load_file(run.out / ADAPTER / name) for run in (finished, fork))
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_warmup_can_start_from_an_adapter(
    finished: Run, fork: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tmp_path / "given"
    shutil.copytree(finished.out / ADAPTER, given)
    marked = {
        "lora/adapter_model.safetensors": lambda name: "lora_B" in name and "visual" not in name,
        "qformer.safetensors": lambda name: name == "to_q.weight",
    }
    before = {}
    for file, is_marked in marked.items():
        weights = load_file(given / file)
        before |= {n: torch.full_like(w, 0.1) for n, w in weights.items() if is_marked(n)}
        save_file({n: before.get(n, w) for n, w in weights.items()}, given / file)
    names: list[str] = []
    draw_item = CountrySampler.draw_item

    def record_item(sampler: CountrySampler, rng: random.Random):
        names.append((item := draw_item(sampler, rng)).country.name)
        return item

    monkeypatch.setattr(CountrySampler, "draw_item", record_item)
    fork.warmup_from = given
    fork.stage("warmup")
    sampler, sizes = fork.sampler(fork.with_image_cache(fork.load(fork.merged()))[0]), fork.sizes.warmup
    rng = random.Random(f"warmup {sizes.seed} 0")
    first_round = {draw_item(sampler, rng).country.name for _ in range(4)}
    assert len(names) == sizes.plan.steps * sizes.batch
    assert not first_round <= set(names)  # not the items that the given adapter was trained with
    after = {n: w for file in marked for n, w in load_file(fork.out / ADAPTER / file).items()}
    moved = [(after[n].float() - w.float()).abs().max() for n, w in before.items()]
    assert len(before) > 1
    assert "to_q.weight" in before
    assert 0 < max(moved) < 0.03  # some steps of 0.002, from the given weights


def test_the_adapter_loads_on_the_merged_backbone_and_leaves_its_vision_alone(finished: Run) -> None:
    backbone, cached, _ = load_backbones(finished, TOWER, BASE_LORA)
    config = finished.config(adapter=finished.out / ADAPTER)
    adapter = attach_adapter(config.adapter, backbone)
    parameters = {n: p for n, p in backbone.model.named_parameters() if ".lora_B." in n}
    assert all(p.abs().max() == 0 for n, p in parameters.items() if ".visual." in n)
    assert any(p.abs().max() > 0 for n, p in parameters.items() if ".visual." not in n)
    _, text, entry = finished.sampler(cached).draw_item(random.Random(0))
    image = view_image(tower_maps(finished.sizes.vision.maps)[entry.map], entry)
    memory = MemoryEncoder(config, backbone=backbone, adapter=adapter).encode([(text, image)])
    assert memory.shape == (1, 8, 64)
