"""A small run, whole and in parts."""

import shutil

import pytest
from support.tiny import write_items
from support.tiny_clip import write_clip
from support.tiny_run import write_memory_stage, write_run

from comem_ray.config import Config
from comem_ray.doctor.run import check_artifacts, check_inputs, check_models


@pytest.fixture(scope="module")
def config(make_config, tmp_path_factory) -> Config:
    home = tmp_path_factory.mktemp("home")
    section, _ = write_clip(home)
    config = make_config(
        root=str(home / "run"), clip=section, ingest={"sources": [{"path": str(home / "items.jsonl")}]}
    )
    (home / "items.jsonl").write_text("{}\n")
    write_run(config, [5, 4])
    write_memory_stage(config)
    return config


def copy(config: Config, folder, **sections) -> Config:
    """The same run in another folder, with sections changed."""
    shutil.copytree(config.folder(""), folder / "run")
    data = config.model_dump(mode="json") | {"root": str(folder / "run")}
    return Config.model_validate(data | {name: {**data[name], **fields} for name, fields in sections.items()})


def faults(config: Config) -> dict[str, tuple[str, str]]:
    """Status and detail of each fault of the models and the run."""
    models = list(check_models(config))
    return {f.name: (f.status, f.detail) for f in [*models, *check_artifacts(config, models)] if f.is_fault}


def test_a_whole_run_has_no_fault(config):
    models = list(check_models(config))
    findings = {f.name: f for f in check_artifacts(config, models)}
    assert [m.name for m in models] == ["clip", "backbone", "encoder"]
    assert set(findings) == {"items", "embeddings", "index", "memory", "index and clip", "memory and encoder"}
    assert {f.status for f in [*models, *findings.values()]} == {"ok"}
    assert findings["index"].facts["made_from"]["items"] == findings["items"].facts["fingerprint"]
    assert "9 items" in findings["memory"].detail


def test_missing_stages_are_named_with_their_job(config, tmp_path):
    other = copy(config, tmp_path)
    shutil.rmtree(other.folder("memory"))
    (other.folder("index") / "manifest.json").unlink()
    shutil.rmtree(other.folder("index"))
    assert {name: status for name, (status, _) in faults(other).items()} == {"memory": "missing", "index": "missing"}
    assert "python -m jobs.encode_memory" in faults(other)["memory"][1]
    shutil.rmtree(other.folder(""))
    assert set(faults(other)) == {"items", "embeddings", "index", "memory"}


def test_an_unfinished_stage_is_missing_and_a_damaged_one_is_wrong(config, tmp_path):
    other = copy(config, tmp_path)
    (other.folder("memory") / "manifest.json").unlink()
    shard = next(other.folder("items").glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-1])
    found = faults(other)
    assert found["memory"][0] == "missing"
    assert found["items"][0] == "wrong"
    assert shard.name in found["items"][1]


def test_another_clip_model_is_wrong(config, tmp_path):
    section, _ = write_clip(tmp_path / "clip", seed=7)
    found = faults(copy(config, tmp_path, clip=section))
    assert set(found) == {"index and clip"}
    assert "was made with the CLIP model" in found["index and clip"][1]


def test_another_encoder_is_wrong(config, tmp_path):
    found = faults(copy(config, tmp_path, adapter={"seed": 5}))
    assert set(found) == {"memory and encoder"}


def test_stages_of_other_items_do_not_belong_together(config, tmp_path):
    other = copy(config, tmp_path)
    shutil.rmtree(other.folder("items"))
    write_items(other.folder("items"), [5, 4, 1])
    found = faults(other)
    assert set(found) == {"embeddings", "index", "memory"}
    assert all(status == "wrong" and "do not belong together" in detail for status, detail in found.values())


def test_models_that_are_not_there_are_missing(config, tmp_path):
    backbone = {"model": str(tmp_path / "none")}
    found = faults(copy(config, tmp_path, backbone=backbone, clip={"model": str(tmp_path / "none.json")}))
    assert {name: status for name, (status, _) in found.items()} == {"clip": "missing", "backbone": "missing"}
    found = faults(copy(config, tmp_path / "b", adapter={"path": str(tmp_path / "adapter")}))
    assert found["encoder"][0] == "missing"


def test_the_sources_of_the_knowledge_base_and_of_training(config, tmp_path):
    (finding,) = check_inputs(config)
    assert (finding.status, finding.facts) == ("ok", {"files": 1, "bytes": 3, "formats": "jsonl"})
    data = config.model_dump(mode="json")
    data["ingest"]["sources"] = [{"path": str(tmp_path / "none.tsv")}, *data["ingest"]["sources"]]
    data["synthesis"] = {"sources": [{"task": "jsonl", "path": str(tmp_path / "q.jsonl"), "images": str(tmp_path)}]}
    findings = {f.name: f.status for f in check_inputs(Config.model_validate(data))}
    assert findings == {
        "ingest.sources.0": "missing",
        "ingest.sources.1": "ok",
        "synthesis.sources.0.path": "missing",
        "synthesis.sources.0.images": "ok",
    }
