"""A killed run that goes on ends with the weights of an uninterrupted one, bit for bit (float32 on the CPU)."""

import json
from collections import Counter
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file
from support.tiny import write_items
from support.tiny_training import write_samples

from comem_ray.artifacts import ArtifactError
from comem_ray.model.memory_encoder import MemoryEncoder
from comem_ray.training.data.samples import batch_of, epoch_order, share_of, steps_of
from comem_ray.training.loop import Diverged, Trainer, trainable_parameters


@pytest.fixture
def make_run(make_config, tmp_path):
    """A function name, fields -> configuration of a run of its own over the same ten samples."""

    def make(name: str = "run", **training):
        root = tmp_path / name
        fields = {"data": str(tmp_path / "data"), "epochs": 2, "global_batch": 4, "micro_batch": 3, "warmup": 0.2}
        fields |= {"learning_rate": 1e-3, "checkpoint_every": 2, "items": 2, **training}
        config = make_config(root=str(root), training=fields, seed=3)
        if not (root / "items" / "manifest.json").exists():
            write_samples(tmp_path / "data", write_items(config.folder("items"), [8]))
        return config

    return make


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in trainable_parameters(trainer.adapter).items()}


def test_stopped_at_any_step_and_resumed_equals_uninterrupted(make_run):
    whole = Trainer(make_run("whole"))
    reports = list(whole.run())
    assert [r.step for r in reports] == [1, 2, 3, 4, 5]
    for stop in (1, 3):  # before the first checkpoint, and between two
        config = make_run(f"stopped-{stop}")
        running = Trainer(config).run()
        for _ in range(stop):
            next(running)
        resumed = Trainer(config)
        again = list(resumed.run())
        assert again[0].step == stop // 2 * 2 + 1
        assert [r.loss for r in again] == [r.loss for r in reports[-len(again) :]]
        for name, weight in weights(whole).items():
            assert torch.equal(weights(resumed)[name], weight), name
    assert not list(Trainer(make_run("whole")).run())  # and a finished run has nothing left to do


def test_it_learns_and_the_checkpoint_is_an_adapter(make_run):
    config = make_run(epochs=16, checkpoint_every=100)
    trainer = Trainer(config)
    reports = list(trainer.run())
    assert reports[-1].loss < 0.8 * reports[0].loss
    last = trainer.checkpoints.latest()
    kept = {n for f in last.rglob("*.safetensors") for n in load_file(f) if "optimizer" not in str(f)}
    assert not any("embed_tokens" in n or n.startswith("model.") for n in kept)  # no frozen weight is saved
    loaded = MemoryEncoder(config.model_copy(update={"adapter": config.adapter.model_copy(update={"path": str(last)})}))
    trainer.backbone.model.eval()
    trainer.adapter.qformer.eval()
    sequences = [loaded.sequence("Title 1: text", trainer.samples.get(1).image)]
    ours = MemoryEncoder(config, backbone=trainer.backbone, adapter=trainer.adapter)
    assert torch.equal(loaded.encode_sequences(sequences), ours.encode_sequences(sequences))


def test_a_start_keeps_its_own_sizes(make_run):
    """The configuration's sizes are those of new weights; four heads with the weights of two would pass unseen."""
    first = Trainer(make_run("first", max_steps=1))
    list(first.run())
    config = make_run("second", max_steps=1, start=str(first.checkpoints.latest()))
    other = config.model_copy(update={"adapter": config.adapter.model_copy(update={"qformer_heads": 2})})
    second = Trainer(other)
    list(second.run())
    sizes = json.loads((second.checkpoints.latest() / "adapter.json").read_text())["qformer"]
    assert sizes == first.adapter.qformer.sizes
    assert sizes["heads"] == 4


def test_a_step_is_reported_before_it_is_saved(make_run):
    config = make_run(checkpoint_every=1)
    running = Trainer(config).run()
    assert [next(running).step, next(running).step] == [1, 2]
    assert Trainer(config).checkpoints.latest_step() == 1  # killed while step 2 is logged, it is done again
    assert next(Trainer(config).run()).step == 2


def test_old_checkpoints_go(make_run):
    trainer = Trainer(make_run(checkpoint_every=1, keep_checkpoints=2))
    list(trainer.run())
    assert sorted(p.name for p in trainer.checkpoints.folder.iterdir()) == ["step-000004", "step-000005"]


def test_divergence_stops_the_run_and_names_the_last_good_checkpoint(make_run):
    trainer = Trainer(make_run(checkpoint_every=1))
    running = trainer.run()
    next(running)
    with torch.no_grad():
        trainer.adapter.qformer.proj_out.bias.fill_(float("nan"))
    with pytest.raises(Diverged, match=r"step 2: the loss is nan.*step-000001"):
        next(running)


def test_a_run_of_another_configuration_is_not_continued(make_run):
    list(Trainer(make_run()).run())
    with pytest.raises(ArtifactError, match=r"training: stored .*0\.001.*now .*0\.002"):
        list(Trainer(make_run(learning_rate=2e-3)).run())


def test_order_of_the_data():
    assert sorted(epoch_order(10, 1, 0)) == list(range(10))
    assert epoch_order(10, 1, 0) != epoch_order(10, 1, 1) != epoch_order(10, 2, 1)
    sets = [0, 1, 2, 1, 0, 2, 2, 3, 3, 0]
    for epoch in range(3):
        order = epoch_order(10, 1, epoch, sets)
        assert sorted(order) == list(range(10))
        assert len([1 for a, b in pairwise(order) if sets[a] != sets[b]]) == 3  # sets stay whole
    assert epoch_order(10, 1, 0, sets) != epoch_order(10, 1, 1, sets)
    counts = Counter(i for step in range(5) for i in batch_of(step, 10, 4, seed=1))
    assert set(counts.values()) == {2}  # five steps of four are two epochs of ten
    batch = batch_of(3, 10, 4, 1)
    assert sorted(i for rank in range(3) for i in share_of(batch, rank, 3)) == sorted(batch)
    assert [steps_of(10, 4, 2, None), steps_of(10, 4, 2, 3), steps_of(3, 16, 1, None)] == [5, 3, 1]
