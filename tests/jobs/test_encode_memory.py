"""jobs.encode_memory on a real local Ray: right memory, resumed after kill -9 with identical files."""

import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from support.tiny import image, item_row, rename_to_old_columns, shard_paths, stage_bytes, write_items
from support.tiny_run import make_shards

from comem_ray.artifacts import ArtifactError, StageFolder, load_manifest
from comem_ray.config import ConfigError, load_config
from comem_ray.memory_store import STAGE, MemoryStore
from comem_ray.model.adapter import encoder_fingerprint
from comem_ray.model.memory_encoder import MemoryEncoder
from jobs.encode_memory import EncodeShard

SIZES = [40, 0, 33, 50, 25, 30]


@pytest.fixture(scope="module")
def run_file(make_config, tmp_path_factory):
    """A function name -> configuration file of a run of its own, over the same items."""
    home = tmp_path_factory.mktemp("home")

    def make(name: str) -> Path:
        config = make_config(root=str(home / name), memory={"batch_tokens": 600, "workers": {"count": 2, "cpus": 0.5}})
        write_items(config.folder("items"), SIZES)
        path = home / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
        return path

    return make


@pytest.fixture(scope="module")
def uninterrupted(run_file, start_job):
    path = run_file("uninterrupted")
    return path, start_job("jobs.encode_memory", path).finish()


def test_summary_and_memory(uninterrupted):
    path, output = uninterrupted
    assert re.search(r"items +178\n", output)
    config = load_config(path)
    store = MemoryStore(config.folder("memory"), encoder_fingerprint(config))
    assert len(store) == sum(SIZES)
    rows = [item_row(i) for i in (0, 39, 40, 177)]
    encoded = MemoryEncoder(config).encode(
        [(str(r["text"]), image(int(r["source_row"]), int(r["width"]))) for r in rows]
    )
    stored = store.get([r["item_id"] for r in rows])
    # Stored memory equals memory encoded now, up to the rounding of another batch.
    torch.testing.assert_close(stored.float(), encoded.float(), atol=0.03, rtol=0.01)


def test_items_of_version_0_1_are_encoded(uninterrupted, run_file):
    config = load_config(run_file("old"))
    rename_to_old_columns(config.folder("items"))
    stage = StageFolder(config.folder("memory"), STAGE, {})
    make_shards(config, stage, EncodeShard(config, stage))
    folders = stage.path, load_config(uninterrupted[0]).folder("memory")
    old, new = ([path.read_bytes() for path in shard_paths(folder, ".safetensors")] for folder in folders)
    assert old == new


def test_new_moved_and_changed_items_cost_themselves(uninterrupted, run_file, start_job):
    path = run_file("moved")
    config, before = load_config(path), load_config(uninterrupted[0]).folder("memory")
    shutil.copytree(before, config.folder("memory"))
    write_items(config.folder("items"), [60, 60, 59], first=[900], images={70: item_row(300)["image"]})
    output = start_job("jobs.encode_memory", path).finish()
    assert re.search(r"items computed +2\n", output)
    assert re.search(r"items taken over +177\n", output)
    fingerprint = encoder_fingerprint(config)
    same = [item_row(i)["item_id"] for i in range(178) if i != 70]
    store = MemoryStore(config.folder("memory"), fingerprint)
    assert torch.equal(store.get(same), MemoryStore(before, fingerprint).get(same))
    assert not store.missing([item_row(900)["item_id"], item_row(70)["item_id"]])


def test_a_bad_item_costs_itself_and_a_model_that_overflows_is_refused(run_file):
    config = load_config(run_file("bad"))
    write_items(config.folder("items"), [5, 5], images={3: b"no image"})
    stage = StageFolder(config.folder("memory"), STAGE, {"encoder": encoder_fingerprint(config)})
    actor = EncodeShard(config, stage)
    text = item_row(6)["text"]
    overflowing = len(actor.encoder.sequence(text, image(6)))
    real = actor.encoder.forward

    def overflow(sequences):
        """As float16 does: for items of one length, infinite numbers."""
        memory = real(sequences)
        return torch.where(torch.tensor([len(s) == overflowing for s in sequences])[:, None, None], torch.inf, memory)

    actor.encoder.forward = overflow
    make_shards(config, stage, actor)
    manifest = load_manifest(stage.path, STAGE)
    assert manifest.counts["rejected.image_refused"] == 1
    assert 1 <= manifest.counts["rejected.not_finite"] < 9
    store = MemoryStore(stage.path, encoder_fingerprint(config))
    assert item_row(6)["item_id"] not in store
    assert len(store) == manifest.counts["items"] == 10 - manifest.counts["rejected"]
    actor.encoder.forward = lambda sequences: real(sequences) * torch.nan
    with pytest.raises(ConfigError, match=r"the memory of all \d items is NaN or infinite: .* weights"):
        make_shards(config, stage, actor)


@pytest.mark.parametrize("victim", ["driver", "worker"])
def test_killed_then_rerun_equals_uninterrupted(uninterrupted, run_file, start_job, victim):
    path = run_file(f"killed-{victim}")
    memory = load_config(path).folder("memory")
    job = start_job("jobs.encode_memory", path)
    job.wait_for(lambda: len(list((memory / "records").glob("*.json"))) >= 1)
    if victim == "driver":
        job.kill()
        assert not (memory / "manifest.json").exists()
        job = start_job("jobs.encode_memory", path)
    else:
        job.kill_worker("EncodeShard")
    job.finish()
    assert stage_bytes(memory) == stage_bytes(load_config(uninterrupted[0]).folder("memory"))


def test_a_store_begun_by_another_encoder_is_refused(uninterrupted, start_job):
    output = start_job("jobs.encode_memory", uninterrupted[0], "--set", "adapter.seed=5").finish(3)
    assert "started with another configuration" in output
    config = load_config(uninterrupted[0], ["adapter.seed=5"])
    with pytest.raises(ArtifactError, match="made by encoder"):
        MemoryStore(config.folder("memory"), encoder_fingerprint(config))
