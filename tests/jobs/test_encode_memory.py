"""jobs.encode_memory on a real local Ray: right memory, resumed after kill -9 with identical files."""

from pathlib import Path

import pytest
import torch
import yaml
from support.tiny import image, item_row, rename_to_old_columns, write_items

from comem_ray.artifacts import ArtifactError, StageFolder
from comem_ray.config import load_config
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


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def uninterrupted(run_file, start_job):
    path = run_file("uninterrupted")
    return path, start_job("jobs.encode_memory", path).finish()


def test_summary_and_memory(uninterrupted):
    path, output = uninterrupted
    assert "items    178" in output
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
    worker = EncodeShard(config, StageFolder(config.folder("memory"), STAGE, {}))
    worker({"unit": ["part-0000-000000"], "inputs": [""]})
    name = "part-0000-000000.safetensors"
    written = (config.folder("memory") / name).read_bytes()
    assert written == (load_config(uninterrupted[0]).folder("memory") / name).read_bytes()


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
    assert contents(memory) == contents(load_config(uninterrupted[0]).folder("memory"))


def test_a_store_begun_by_another_encoder_is_refused(uninterrupted, start_job):
    output = start_job("jobs.encode_memory", uninterrupted[0], "--set", "adapter.seed=5").finish(3)
    assert "started with another configuration" in output
    config = load_config(uninterrupted[0], ["adapter.seed=5"])
    with pytest.raises(ArtifactError, match="made by encoder"):
        MemoryStore(config.folder("memory"), encoder_fingerprint(config))
