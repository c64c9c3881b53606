from pathlib import Path

import pytest

from comem_ray.artifacts import ArtifactError
from comem_ray.config import ClipConfig, load_config
from comem_ray.retrieval.clip import ClipEncoder
from examples.countries.prepare import prepare


def test_everything_that_the_configuration_names_is_there(demo_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMEM_HOME", str(demo_home))
    config = load_config("configs/demo.yaml")
    source = config.ingest.sources[0]
    for name in (
        source.path,
        source.images,
        config.clip.model,
        config.clip.pretrained,
        config.backbone.model,
        config.adapter.path,
    ):
        assert (demo_home / name).exists(), name
    assert (demo_home / "demo" / "questions" / "questions.jsonl").exists()
    assert ClipEncoder(ClipConfig(model=config.clip.model, pretrained=config.clip.pretrained)).width == 128


def test_a_second_call_leaves_what_is_complete(demo_home: Path, wheel: Path) -> None:
    big = [p for p in (demo_home / "demo").rglob("*") if p.suffix in {".png", ".safetensors"}]
    before = {p: p.stat().st_mtime_ns for p in big}
    assert prepare(demo_home, wheel.parent)["images"] == 251
    assert before == {p: p.stat().st_mtime_ns for p in big}


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"lacks comem-demo-clip.json.* train the model"):
        prepare(tmp_path, weights=tmp_path / "nowhere")
